"""Models: upload, list, one, delete."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from compressors.errors import UnsafeArchive, UnsupportedModel
from service.blob_register import take_in
from service.catalogue import Catalogue, StoredModel
from service.deps import CatalogueDep, CursorDep, KeyDep, NameQuery, PrincipalDep, RemovalDep, State, StateDep
from service.idempotency import Once
from service.problems import FieldError, Problem
from service.routes.forms import MULTIPART, upload_responses, uploading
from service.tables import models
from service.uploads import Upload
from service.views import ModelList, ModelView

logger = logging.getLogger("bantam.api")
router = APIRouter(prefix="/models", tags=["models"])


@router.post("", status_code=201, openapi_extra=MULTIPART, responses=upload_responses(ModelView))
async def upload_model(
    request: Request,
    response: Response,
    state: StateDep,
    principal: PrincipalDep,
    catalogue: CatalogueDep,
    key: KeyDep,
) -> ModelView:
    """Takes a `.pt2` (torch.export). It is checked and read in a limited process; nothing in it is unpickled freely."""
    async with uploading(request, state, principal, state.settings.max_model_bytes) as upload:
        state.metrics.upload_bytes.labels("model").inc(upload.bytes)
        once = key.with_body(upload.sha256 + upload.name)
        try:
            stored, new = await to_thread.run_sync(_take_in, upload, state, catalogue, once, limiter=state.readers)
        except (UnsafeArchive, UnsupportedModel) as error:
            state.metrics.uploads.labels("model", "refused").inc()
            logger.warning("model %s refused: %s", upload.sha256, error)
            kind = "unsafe-archive" if isinstance(error, UnsafeArchive) else "unsupported-model"
            raise Problem(422, kind, str(error), [FieldError("file", str(error))]) from error
    state.metrics.uploads.labels("model", "new" if new else "known").inc()
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/models/{stored.id}"
    return await to_thread.run_sync(_view, stored, catalogue)


def _view(stored: StoredModel, catalogue: Catalogue) -> ModelView:
    return ModelView.of(stored, catalogue.versions(models, [stored.id]).get(stored.id))


def _take_in(upload: Upload, state: State, catalogue: Catalogue, once: Once | None) -> tuple[StoredModel, bool]:
    known = catalogue.known(models, upload.name, upload.sha256, upload.bytes, once)
    if known is not None:
        return StoredModel.of(known), False
    with tempfile.TemporaryDirectory(dir=upload.path.parent, prefix="intake-") as folder:
        program = Path(folder) / "model.pt2"
        description = state.intake.model(upload.path, program)
        blob = take_in(state.database, state.blobs, program, move=True)
    return catalogue.add_model(
        name=upload.name,
        sha256=upload.sha256,
        size=upload.bytes,
        blob=blob.sha256,
        description=description,
        once=once,
    )


@router.get("")
def list_models(
    catalogue: CatalogueDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: CursorDep = None,
    name: NameQuery = None,
) -> ModelList:
    """Newest first. With `name`: the versions of that name, the latest first."""
    if name is not None:
        found, next_cursor = catalogue.versions_page(models, name, limit=limit, cursor=cursor)
        items = [ModelView.of(StoredModel.of(row), version) for row, version in found]
        return ModelList(items=items, next_cursor=next_cursor)
    page = catalogue.page(models, limit=limit, cursor=cursor)
    versions = catalogue.versions(models, [row.id for row in page.rows])
    items = [ModelView.of(StoredModel.of(row), versions.get(row.id)) for row in page.rows]
    return ModelList(items=items, next_cursor=page.next_cursor)


@router.get("/{model_id}")
def get_model(model_id: str, catalogue: CatalogueDep) -> ModelView:
    return _view(catalogue.model(model_id), catalogue)


@router.delete("/{model_id}", status_code=204)
def delete_model(model_id: str, removal: RemovalDep) -> Response:
    """Refused while an unfinished job or a schedule needs it. Finished jobs keep their results."""
    removal.model(model_id)
    return Response(status_code=204)

"""Models: upload, list, one."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from compressors.errors import UnsafeArchive, UnsupportedModel
from service.catalogue import StoredModel, identifier
from service.deps import CatalogueDep, State, StateDep
from service.problems import FieldError, Problem, not_found
from service.routes.forms import MULTIPART
from service.uploads import Upload, received
from service.views import ModelList, ModelView

logger = logging.getLogger("bantam.api")
router = APIRouter(prefix="/models", tags=["models"])


@router.post("", status_code=201, openapi_extra=MULTIPART, responses={200: {"description": "these bytes are known"}})
async def upload_model(request: Request, response: Response, state: StateDep, catalogue: CatalogueDep) -> ModelView:
    """Takes a `.pt2` (torch.export). It is checked and read in a limited process; nothing in it is unpickled freely."""
    async with received(request, state.settings.uploads_dir, state.settings.max_model_bytes) as upload:
        state.metrics.upload_bytes.labels("model").inc(upload.bytes)
        try:
            stored, new = await to_thread.run_sync(_take_in, upload, state, catalogue, limiter=state.readers)
        except (UnsafeArchive, UnsupportedModel) as error:
            state.metrics.uploads.labels("model", "refused").inc()
            logger.warning("model %s refused: %s", upload.sha256, error)
            kind = "unsafe-archive" if isinstance(error, UnsafeArchive) else "unsupported-model"
            raise Problem(422, kind, str(error), [FieldError("file", str(error))]) from error
    state.metrics.uploads.labels("model", "new" if new else "known").inc()
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/models/{stored.id}"
    return ModelView.of(stored)


def _take_in(upload: Upload, state: State, catalogue: CatalogueDep) -> tuple[StoredModel, bool]:
    known = catalogue.model(identifier("m", upload.sha256))
    if known is not None:
        return known, False
    with tempfile.TemporaryDirectory(dir=upload.path.parent, prefix="intake-") as folder:
        program = Path(folder) / "model.pt2"
        description = state.intake.model(upload.path, program)
        blob = state.blobs.adopt(program)
    return catalogue.add_model(
        name=upload.name, sha256=upload.sha256, size=upload.bytes, blob=blob.sha256, description=description
    )


@router.get("")
def list_models(catalogue: CatalogueDep, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> ModelList:
    """Newest first."""
    return ModelList(items=[ModelView.of(m) for m in catalogue.models(limit)])


@router.get("/{model_id}")
def get_model(model_id: str, catalogue: CatalogueDep) -> ModelView:
    stored = catalogue.model(model_id)
    if stored is None:
        raise not_found("model", model_id, "GET /v1/models lists all")
    return ModelView.of(stored)

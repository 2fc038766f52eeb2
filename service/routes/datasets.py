"""Datasets: upload, list, one, delete."""

from __future__ import annotations

import logging
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from compressors.errors import InvalidData
from service.blob_register import take_in
from service.catalogue import Catalogue, StoredDataset
from service.deps import CatalogueDep, CursorDep, KeyDep, NameQuery, PrincipalDep, RemovalDep, State, StateDep
from service.idempotency import Once
from service.problems import FieldError, Problem
from service.routes.forms import MULTIPART, upload_responses, uploading
from service.tables import datasets
from service.uploads import Upload
from service.views import DatasetList, DatasetView

logger = logging.getLogger("bantam.api")
router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post("", status_code=201, openapi_extra=MULTIPART, responses=upload_responses(DatasetView))
async def upload_dataset(
    request: Request,
    response: Response,
    state: StateDep,
    principal: PrincipalDep,
    catalogue: CatalogueDep,
    key: KeyDep,
) -> DatasetView:
    """Takes parquet, npz or safetensors and reads every row once, in a limited process."""
    async with uploading(request, state, principal, state.settings.max_dataset_bytes) as upload:
        state.metrics.upload_bytes.labels("dataset").inc(upload.bytes)
        once = key.with_body(upload.sha256 + upload.name)
        try:
            stored, new = await to_thread.run_sync(_take_in, upload, state, catalogue, once, limiter=state.readers)
        except InvalidData as error:
            state.metrics.uploads.labels("dataset", "refused").inc()
            logger.warning("dataset %s refused: %s", upload.sha256, error)
            raise Problem(422, "invalid-data", str(error), [FieldError("file", str(error))]) from error
    state.metrics.uploads.labels("dataset", "new" if new else "known").inc()
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/datasets/{stored.id}"
    return await to_thread.run_sync(_view, stored, catalogue)


def _view(stored: StoredDataset, catalogue: Catalogue) -> DatasetView:
    return DatasetView.of(stored, catalogue.versions(datasets, [stored.id]).get(stored.id))


def _take_in(upload: Upload, state: State, catalogue: Catalogue, once: Once | None) -> tuple[StoredDataset, bool]:
    known = catalogue.known(datasets, upload.name, upload.sha256, upload.bytes, once)
    if known is not None:
        return StoredDataset.of(known), False
    description = state.intake.dataset(upload.path)
    take_in(state.database, state.blobs, upload.path, upload.sha256, move=True)
    return catalogue.add_dataset(
        name=upload.name, sha256=upload.sha256, size=upload.bytes, description=description, once=once
    )


@router.get("")
def list_datasets(
    catalogue: CatalogueDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: CursorDep = None,
    name: NameQuery = None,
) -> DatasetList:
    """Newest first. With `name`: the versions of that name, the latest first."""
    if name is not None:
        found, next_cursor = catalogue.versions_page(datasets, name, limit=limit, cursor=cursor)
        items = [DatasetView.of(StoredDataset.of(row), version) for row, version in found]
        return DatasetList(items=items, next_cursor=next_cursor)
    page = catalogue.page(datasets, limit=limit, cursor=cursor)
    versions = catalogue.versions(datasets, [row.id for row in page.rows])
    items = [DatasetView.of(StoredDataset.of(row), versions.get(row.id)) for row in page.rows]
    return DatasetList(items=items, next_cursor=page.next_cursor)


@router.get("/{dataset_id}")
def get_dataset(dataset_id: str, catalogue: CatalogueDep) -> DatasetView:
    return _view(catalogue.dataset(dataset_id), catalogue)


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: str, removal: RemovalDep) -> Response:
    """Refused while an unfinished job or a schedule needs it. Finished jobs keep their results."""
    removal.dataset(dataset_id)
    return Response(status_code=204)

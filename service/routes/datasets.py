"""Datasets: upload, list, one."""

from __future__ import annotations

import logging
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from compressors.errors import InvalidData
from service.catalogue import StoredDataset, identifier
from service.deps import CatalogueDep, State, StateDep
from service.problems import FieldError, Problem, not_found
from service.routes.forms import MULTIPART
from service.uploads import Upload, received
from service.views import DatasetList, DatasetView

logger = logging.getLogger("bantam.api")
router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post("", status_code=201, openapi_extra=MULTIPART, responses={200: {"description": "these bytes are known"}})
async def upload_dataset(request: Request, response: Response, state: StateDep, catalogue: CatalogueDep) -> DatasetView:
    """Takes parquet, npz or safetensors and reads every row once, in a limited process."""
    async with received(request, state.settings.uploads_dir, state.settings.max_dataset_bytes) as upload:
        state.metrics.upload_bytes.labels("dataset").inc(upload.bytes)
        try:
            stored, new = await to_thread.run_sync(_take_in, upload, state, catalogue, limiter=state.readers)
        except InvalidData as error:
            state.metrics.uploads.labels("dataset", "refused").inc()
            logger.warning("dataset %s refused: %s", upload.sha256, error)
            raise Problem(422, "invalid-data", str(error), [FieldError("file", str(error))]) from error
    state.metrics.uploads.labels("dataset", "new" if new else "known").inc()
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/datasets/{stored.id}"
    return DatasetView.of(stored)


def _take_in(upload: Upload, state: State, catalogue: CatalogueDep) -> tuple[StoredDataset, bool]:
    known = catalogue.dataset(identifier("d", upload.sha256))
    if known is not None:
        return known, False
    description = state.intake.dataset(upload.path)
    state.blobs.adopt(upload.path, upload.sha256)
    return catalogue.add_dataset(name=upload.name, sha256=upload.sha256, size=upload.bytes, description=description)


@router.get("")
def list_datasets(catalogue: CatalogueDep, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> DatasetList:
    """Newest first."""
    return DatasetList(items=[DatasetView.of(d) for d in catalogue.datasets(limit)])


@router.get("/{dataset_id}")
def get_dataset(dataset_id: str, catalogue: CatalogueDep) -> DatasetView:
    stored = catalogue.dataset(dataset_id)
    if stored is None:
        raise not_found("dataset", dataset_id, "GET /v1/datasets lists all")
    return DatasetView.of(stored)

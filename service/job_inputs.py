"""From a job's row to what a search needs: files from the blob store, descriptions from their rows, folders."""

from __future__ import annotations

from sqlalchemy import select

from search.inputs import DatasetFile, JobInputs, ModelFile
from search.spec import JobSpec
from service.blobs import BlobStore
from service.catalogue import find_dataset, find_model
from service.database import Database
from service.settings import Settings
from service.tables import jobs


class MissingInput(Exception):
    """A row or file that the job names is gone."""


def job_inputs(job_id: str, database: Database, blobs: BlobStore, settings: Settings) -> JobInputs:
    """Makes the job's workspace and the cache folder. Raises MissingInput."""
    with database.read() as connection:
        document = connection.execute(select(jobs.c.spec).where(jobs.c.id == job_id)).scalar_one()
        spec = JobSpec.model_validate(document)
        model = find_model(connection, spec.model)
        names = {n for n in (spec.data.train, spec.data.validation, spec.data.test) if n is not None}
        datasets = {name: find_dataset(connection, name) for name in sorted(names)}
    if model is None:
        raise MissingInput(f"model {spec.model!r} is gone; upload it again")
    files: dict[str, DatasetFile] = {}
    try:
        program = ModelFile(path=blobs.path(model.blob), sha256=model.sha256, description=model.description)
        for name, dataset in datasets.items():
            if dataset is None:
                raise MissingInput(f"dataset {name!r} is gone; upload it again")
            path = blobs.path(dataset.sha256)
            files[name] = DatasetFile(path=path, sha256=dataset.sha256, description=dataset.description)
    except FileNotFoundError as error:
        raise MissingInput(str(error)) from error
    workspace = settings.workspace(job_id)
    workspace.mkdir(parents=True, exist_ok=True)
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    return JobInputs(
        job_id=job_id, spec=spec, model=program, datasets=files, workspace=workspace, cache=settings.cache_dir
    )

"""From a job's row to what a search needs: files from the blob store, descriptions from their rows, folders."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from search.inputs import DatasetFile, JobInputs, ModelFile
from search.spec import JobSpec
from service.blobs import Blobs
from service.catalogue import StoredDataset, StoredModel, dataset_ids, find_input
from service.database import Database
from service.leases import Lease
from service.refusals import Unknown
from service.settings import Settings
from service.tables import datasets, jobs, models
from service.workspaces import take_workspace


class MissingInput(Exception):
    """A row or file that the job names is gone."""


def job_inputs(lease: Lease, database: Database, blobs: Blobs, settings: Settings) -> JobInputs:
    """Takes over the job's workspace and makes the cache folder. Raises MissingInput."""
    job_id = lease.job_id
    with database.read() as connection:
        document, project_id = connection.execute(
            select(jobs.c.spec, jobs.c.project_id).where(jobs.c.id == job_id)
        ).one()
        spec = JobSpec.model_validate(document)
        try:
            model = StoredModel.of(find_input(connection, models, project_id, spec.model))
            further = {
                name: StoredModel.of(find_input(connection, models, project_id, key))
                for name, key in spec.models.items()
            }
            stored = [
                StoredDataset.of(find_input(connection, datasets, project_id, name)) for name in dataset_ids(spec)
            ]
        except Unknown as error:
            raise MissingInput(f"{error.kind} {error.identifier!r} is gone; upload it again") from error
    workspace = take_workspace(settings.workspace(job_id), lease.token)
    lent = workspace / "inputs"
    files: dict[str, DatasetFile] = {}
    try:
        program = _file(blobs, lent, model)
        others = {name: _file(blobs, lent, found) for name, found in further.items()}
        for dataset in stored:
            path = blobs.lend(dataset.sha256, lent)
            files[dataset.id] = DatasetFile(path=path, sha256=dataset.sha256, description=dataset.description)
    except FileNotFoundError as error:
        raise MissingInput(str(error)) from error
    cache = settings.cache(project_id)
    cache.mkdir(parents=True, exist_ok=True)
    return JobInputs(
        job_id=job_id, spec=spec, model=program, models=others, datasets=files, workspace=workspace, cache=cache
    )


def _file(blobs: Blobs, folder: Path, model: StoredModel) -> ModelFile:
    return ModelFile(path=blobs.lend(model.blob, folder), sha256=model.sha256, description=model.description)

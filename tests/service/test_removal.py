from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from search.ledger import LeaseLost
from search.records import JobState
from service.blobs import BlobStore
from service.database import Database
from service.leases import Leases
from service.ledger import SqlLedger
from service.refusals import Gone, InUse
from service.removal import Removal
from service.tables import DEFAULT_PROJECT, artifacts, job_logs, jobs, models, trials
from tests.service.api import RunningApi
from tests.service.rows import LIMITS, add_inputs, add_job, jobs_of, make_spec, make_trial


def end(database: Database, folder: Path, state: JobState = "succeeded") -> SqlLedger:
    """Ends the job that is first in the queue, with all that a search leaves."""
    lease = Leases(database).claim("w", 60)
    assert lease is not None
    ledger = SqlLedger(database, BlobStore(folder / "blobs"), lease)
    ledger.put_trial(make_trial(0))
    (folder / "w.onnx").write_bytes(b"winner")
    ledger.put_artifact("winner", folder / "w.onnx")
    ledger.log("info", "done")
    ledger.finish(state, outcome="feasible", reason=None, report={"outcome": "feasible"})
    return ledger


def test_what_an_unfinished_job_or_a_schedule_needs_stays(api: RunningApi, tmp_path: Path) -> None:
    spec = api.spec()
    model, dataset = f"/v1/models/{spec['model']}", f"/v1/datasets/{spec['data']['train']}"
    job = f"/v1/jobs/{api.submit()}"
    body = {"name": "n", "cron": "0 3 * * *", "job": spec}
    schedule = api.client.post("/v1/schedules", json=body).headers["Location"]
    for url in (model, dataset):
        refused = api.client.delete(url)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:bantam:problem:in-use")
        for user in (job, schedule):
            assert user.rpartition("/")[2] in refused.json()["detail"]
    api.client.post(f"{job}/pause")
    api.client.delete(schedule)
    assert api.client.delete(model).status_code == 409, "a paused job goes on some day"
    api.client.post(f"{job}/resume")
    end(api.database, tmp_path)
    for url in (model, dataset):
        assert api.client.delete(url).status_code == 204
        assert api.client.get(url).status_code == 404
        assert api.client.delete(url).status_code == 404
    kept = api.client.get(job).json()
    assert (kept["state"], kept["spec"]["model"]) == ("succeeded", spec["model"])
    assert api.client.get(f"{job}/report").json()["outcome"] == "feasible"
    fields = [e["field"] for e in api.client.post("/v1/jobs", json=spec).json()["errors"]]
    assert fields == ["model", "data.train"]


def test_a_job_is_deleted_with_all_that_belongs_to_it_once_it_has_ended(api: RunningApi, tmp_path: Path) -> None:
    job_id = api.submit()
    url = f"/v1/jobs/{job_id}"
    refused = api.client.delete(url)
    assert (refused.status_code, "the job is queued; cancel it" in refused.json()["detail"]) == (409, True)
    ledger = end(api.database, tmp_path)
    workspace = api.settings.workspace(job_id)
    workspace.mkdir(parents=True)
    (workspace / "checkpoint.pt").write_bytes(b"x")
    other = api.submit()
    assert api.client.delete(url).status_code == 204
    assert api.client.get(url).status_code == 404
    assert api.client.delete(url).status_code == 404
    assert not workspace.exists()
    with api.database.read() as connection:
        for table in (trials, artifacts, job_logs):
            assert connection.execute(select(func.count()).select_from(table)).scalar_one() == 0
        assert list(connection.scalars(select(jobs.c.id))) == [other]
    with pytest.raises(LeaseLost):
        ledger.log("info", "a late word of its worker")


def test_a_stream_of_a_deleted_job_ends(sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    with sqlite_api.client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        lines = stream.iter_lines()
        while not next(lines).startswith("event: job"):
            pass
        with sqlite_api.database.write() as connection:
            connection.execute(jobs.delete().where(jobs.c.id == job_id))
        assert not any(line.startswith("event:") for line in lines)


def test_a_model_deleted_while_jobs_are_submitted_is_in_use_or_gone(database: Database) -> None:
    model_id, _ = add_inputs(database)
    spec = make_spec(database)
    removal = Removal(database, DEFAULT_PROJECT)

    def submit(_: int) -> str:
        try:
            jobs_of(database).create(spec, LIMITS)
        except Gone:
            return "refused"
        return "made"

    def delete() -> str:
        try:
            removal.model(model_id)
        except InUse:
            return "in use"
        return "deleted"

    with ThreadPoolExecutor(6) as pool:
        deleted = pool.submit(delete)
        results = list(pool.map(submit, range(5)))
    with database.read() as connection:
        left = connection.execute(select(func.count()).select_from(models)).scalar_one()
        count = connection.execute(select(func.count()).select_from(jobs)).scalar_one()
    assert count == results.count("made")
    if deleted.result() == "deleted":
        assert (left, count) == (0, 0)
    else:
        assert left == 1
        assert count == 5


def test_a_job_whose_model_is_gone_keeps_its_row(database: Database, tmp_path: Path) -> None:
    job_id = add_job(database)
    end(database, tmp_path, "failed")
    Removal(database, DEFAULT_PROJECT).model(add_inputs(database)[0])
    row: Any = jobs_of(database).get(job_id)
    assert (row.model_id, row.state) == (None, "failed")

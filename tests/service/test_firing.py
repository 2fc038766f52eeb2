from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import select, update

from search.records import JobState
from search.spec import JobSpec, SearchSpec
from service import firing
from service.catalogue import Catalogue
from service.database import Database
from service.firing import fire_due, forget_runs
from service.leases import Leases
from service.limits import Limits
from service.processes import PARENT_VARIABLE
from service.schedules import Schedule, Schedules
from service.settings import Settings
from service.supervisor import python_module
from service.tables import DEFAULT_PROJECT, jobs, schedule_runs, schedules
from tests.service import sample_job, seeded
from tests.service.api import RunningApi
from tests.service.rows import DATASET, LIMITS, MODEL, add_inputs, jobs_of, make_spec
from tests.service.test_schedules import at, make

NIGHTS = [f"2026-03-{day:02} 03:00" for day in range(1, 10)]


def all_of(database: Database) -> Schedules:
    return Schedules(database, DEFAULT_PROJECT, LIMITS)


def history(database: Database, schedule: Schedule) -> list[tuple[float | None, str, str | None]]:
    """(tick, decision, job), oldest first."""
    page = all_of(database).runs(schedule.id, limit=500, cursor=None)
    return [(row.tick, row.decision, row.job_id) for row in reversed(page.rows)]


def decisions(database: Database, schedule: Schedule) -> list[str]:
    return [decision for _, decision, _ in history(database, schedule)]


def end(database: Database, job_id: str, state: str = "succeeded") -> None:
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(state=state))


def fire(database: Database, moments: Sequence[str], *, end_each: bool = True) -> list[str]:
    fired = []
    for moment in moments:
        fired += (new := fire_due(database, LIMITS, at(moment)))
        for job_id in new if end_each else ():
            end(database, job_id)
    return fired


def test_each_tick_has_one_row_with_its_job(database: Database) -> None:
    made = make(database)
    fired = fire(database, NIGHTS[:3])
    assert history(database, made) == [(at(m), "submitted", j) for m, j in zip(NIGHTS[:3], fired, strict=True)]


def test_overlap_skip_says_which_job_was_in_the_way(database: Database) -> None:
    made = make(database)
    (first,) = fire(database, NIGHTS[:3], end_each=False)
    assert decisions(database, made) == ["submitted", "skipped", "skipped"]
    newest = all_of(database).runs(made.id, limit=1, cursor=None)
    assert newest.rows[0].reason == f"overlap: job {first} is queued"
    assert newest.next_cursor is not None
    end(database, first, "failed")
    assert len(fire(database, NIGHTS[3:4])) == 1


def test_overlap_queue_runs_them_one_after_another(database: Database) -> None:
    made = make(database, overlap="queue")
    (first,) = fire(database, NIGHTS[:3], end_each=False)
    assert decisions(database, made) == ["submitted", "waiting", "waiting"]
    end(database, first)
    soon = "2026-03-03 03:10"
    (second,) = fire(database, [soon, soon], end_each=False)
    assert history(database, made)[1] == (at(NIGHTS[1]), "submitted", second)
    end(database, second)
    (third,) = fire(database, [soon, soon], end_each=False)
    assert [job for _, _, job in history(database, made)] == [first, second, third]
    waiting_again = fire(database, NIGHTS[3:4], end_each=False)
    assert waiting_again == []
    all_of(database).change(made.id, {"enabled": False}, at(NIGHTS[3]))
    assert decisions(database, made) == ["submitted"] * 3 + ["skipped"]


def test_overlap_cancel_previous_cancels_what_waits_and_what_runs(database: Database) -> None:
    make(database, overlap="cancel_previous")
    (first,) = fire(database, NIGHTS[:1], end_each=False)
    (second,) = fire(database, NIGHTS[1:2], end_each=False)
    assert jobs_of(database).get(first).state == "cancelled"
    assert Leases(database).claim("w", 60) is not None
    (third,) = fire(database, NIGHTS[2:3], end_each=False)
    row = jobs_of(database).get(second)
    assert (row.state, row.directive) == ("running", "cancel")
    assert jobs_of(database).get(third).state == "queued"


def test_missed_ticks_are_put_down_and_one_run_stands_for_them(database: Database) -> None:
    made = make(database)
    (job_id,) = fire_due(database, LIMITS, at("2026-03-04 10:30"))
    assert history(database, made) == [
        *((at(m), "missed", None) for m in NIGHTS[:3]),
        (at(NIGHTS[3]), "submitted", job_id),
    ]


def test_missed_skip_waits_for_the_next_tick(database: Database) -> None:
    made = make(database, missed="skip")
    assert fire_due(database, LIMITS, at("2026-03-02 10:30")) == []
    assert decisions(database, made) == ["missed", "missed"]
    assert len(fire_due(database, LIMITS, at("2026-03-03 03:00") + 2)) == 1


def test_missed_run_all_makes_up_for_each_in_turn(database: Database) -> None:
    made = make(database, missed="run_all")
    fired = []
    for _ in range(6):
        fired += fire(database, ["2026-03-04 10:30"])
    assert len(fired) == 4
    assert history(database, made) == [(at(m), "submitted", j) for m, j in zip(NIGHTS[:4], fired, strict=True)]


def test_a_long_pause_of_an_every_minute_schedule_is_bounded(database: Database) -> None:
    made = make(database, cron="* * * * *", missed="run_all")
    assert len(fire_due(database, LIMITS, at("2027-03-01 00:00"))) == 1
    assert Counter(decisions(database, made)) == {"missed": 76, "submitted": 1, "waiting": 23}


def test_a_full_queue_is_a_reason_not_a_loss(database: Database) -> None:
    made = make(database)
    full = Limits.of(Settings(max_queued_jobs=1))
    jobs_of(database).create(make_spec(database), LIMITS)
    assert fire_due(database, full, at(NIGHTS[0])) == []
    page = all_of(database).runs(made.id, limit=1, cursor=None)
    assert page.rows[0].decision == "refused"
    assert "BANTAM_MAX_QUEUED_JOBS=1" in page.rows[0].reason


def test_a_broken_schedule_does_not_keep_others_from_firing(database: Database) -> None:
    broken, good = make(database), make(database)
    with database.write() as connection:
        change = {"timezone": "Mars/Olympus", "next_run_at": at(NIGHTS[0])}
        connection.execute(update(schedules).where(schedules.c.id == broken.id).values(**change))
    assert len(fire_due(database, LIMITS, at(NIGHTS[0]))) == 1
    assert decisions(database, good) == ["submitted"]
    stopped = all_of(database).get(broken.id)
    assert (stopped.enabled, stopped.next_run_at) == (False, None)
    (row,) = all_of(database).runs(broken.id, limit=9, cursor=None).rows
    assert (row.tick, row.decision) == (at(NIGHTS[0]), "refused")
    assert "Mars/Olympus" in row.reason


def test_a_job_that_this_release_no_longer_takes_is_refused(database: Database) -> None:
    made = make(database)
    with database.write() as connection:
        connection.execute(update(schedules).values(job={**made.job, "objective": "gone"}))
    assert fire_due(database, LIMITS, at(NIGHTS[0])) == []
    assert decisions(database, made) == ["refused"]


def test_old_rows_are_forgotten(database: Database) -> None:
    made = make(database)
    fire(database, NIGHTS[:2])
    with database.write() as connection:
        connection.execute(update(schedule_runs).where(schedule_runs.c.tick == at(NIGHTS[0])).values(decided_at=0))
    assert forget_runs(database, 3600) == 1
    assert [tick for tick, _, _ in history(database, made)] == [at(NIGHTS[1])]


def test_a_name_stands_for_the_newest_upload_at_each_tick(database: Database) -> None:
    made = make(database, job={"model": "net@latest", "data": {"train": "rows@latest"}})
    dataset = many_rows(database)
    catalogue = Catalogue(database, DEFAULT_PROJECT, LIMITS)
    (first,) = fire(database, NIGHTS[:1])
    newer, _ = catalogue.add_model(name="net", sha256="ab" * 32, size=9, blob="ab" * 32, description=MODEL)
    (second,) = fire(database, NIGHTS[1:2])
    rows = [jobs_of(database).get(job_id) for job_id in (first, second)]
    assert [row.spec["model"] for row in rows] == [add_inputs(database)[0], newer.id]
    assert [row.model_id for row in rows] == [row.spec["model"] for row in rows]
    assert [row.resolved["model"]["version"] for row in rows] == [1, 2]
    assert rows[1].resolved["data.train"]["id"] == rows[1].spec["data"]["train"] == dataset
    assert all_of(database).get(made.id).job["model"] == "net@latest"


def test_a_new_version_that_does_not_fit_is_refused_with_the_reason(database: Database) -> None:
    made = make(database, job={"data": {"train": "rows@latest"}})
    many_rows(database, columns=1)
    assert fire_due(database, LIMITS, at(NIGHTS[0])) == []
    page = all_of(database).runs(made.id, limit=1, cursor=None)
    assert page.rows[0].decision == "refused"
    assert "label" in page.rows[0].reason


class StartFrom(BaseModel):
    job: str | None = None
    recipes: list[dict[str, Any]] = []


class StartingSearch(SearchSpec):
    start_from: StartFrom | None = None


class StartingSpec(JobSpec):
    search: StartingSearch = StartingSearch()


@pytest.mark.parametrize("warm", [True, False])
def test_a_warm_start_is_from_the_last_good_job(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    monkeypatch.setattr(firing, "JobSpec", StartingSpec)
    monkeypatch.setattr(firing, "SearchSpec", StartingSearch)
    made = make(database, warm_start=warm)
    started = []
    good: str | None = None
    states: list[JobState] = ["failed", "succeeded", "cancelled", "succeeded", "succeeded"]
    for night, state in zip(NIGHTS, states, strict=False):
        (job_id,) = fire_due(database, LIMITS, at(night))
        started.append((jobs_of(database).get(job_id).spec["search"].get("start_from") or {}).get("job"))
        assert started[-1] == (good if warm else None), night
        ledger = seeded.coordinator(database, settings.data_dir)
        ledger.put_best(sample_job.best(sample_job.trials()))
        ledger.finish(state, outcome=None, reason=None, report=None)
        good = job_id if state == "succeeded" else good
    assert len(set(started) - {None}) == (2 if warm else 0)
    assert all_of(database).get(made.id).job == made.job, "the schedule's own job stays as it was given"


def many_rows(database: Database, columns: int = 2) -> str:
    """The id of the newest dataset called rows, of which there are enough to search on."""
    description = replace(DATASET, rows=1000, columns=DATASET.columns[:columns])
    digest = f"{columns:064}"
    catalogue = Catalogue(database, DEFAULT_PROJECT, LIMITS)
    return catalogue.add_dataset(name="rows", sha256=digest, size=9, description=description)[0].id


def run_schedulers(settings: Settings, count: int, until: Any) -> None:
    """Real processes, until `until()` is true."""
    environment = {**os.environ, **settings.environment(), PARENT_VARIABLE: str(os.getpid())}
    command = python_module("service.scheduler")
    running = [subprocess.Popen(command, env=environment) for _ in range(count)]
    deadline = time.monotonic() + 60
    while not until() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)  # for a second job, if there were one
    for process in running:
        process.terminate()
    assert [process.wait(30) for process in running] == [0] * count


def test_several_scheduler_processes_fire_each_tick_once(database: Database, settings: Settings) -> None:
    wanted, nights = 12, 5
    now = database.clock()
    for number in range(wanted):
        # Midnight of five days ago is due; each schedule's own policy makes something else of it.
        policy: dict[str, Any] = {"missed": "run_all", "overlap": "queue"} if number % 2 else {}
        make(database, cron="0 0 * * *", name=str(number), now="2026-03-01 00:00", **policy)
    with database.write() as connection:
        connection.execute(update(schedules).values(next_run_at=now // 86400 * 86400 - 4 * 86400))

    def rows() -> list[Any]:
        with database.read() as connection:
            return list(connection.execute(select(schedule_runs)))

    run_schedulers(settings, 3, lambda: len(rows()) >= wanted * nights)
    found = rows()
    assert len(found) == len({(row.schedule_id, row.tick) for row in found}) == wanted * nights
    assert Counter(row.decision for row in found) == {"submitted": wanted, "missed": 24, "waiting": 24}
    with database.read() as connection:
        made = list(connection.execute(select(jobs.c.id, jobs.c.schedule_id)))
    assert Counter(job.schedule_id for job in made) == {row.schedule_id: 1 for row in found}
    assert {job.id for job in made} == {row.job_id for row in found if row.job_id}


def test_the_history_over_http(sqlite_api: RunningApi) -> None:
    client, database = sqlite_api.client, sqlite_api.database
    data = {**sqlite_api.spec()["data"], "train": "rows@latest"}
    job_spec = sqlite_api.spec(model="net@latest", data=data)
    many_rows(database)  # after the rows of `spec`: what is uploaded last is the latest
    body = {"name": "nightly", "cron": "0 3 * * *", "overlap": "queue", "job": job_spec}
    made = client.post("/v1/schedules", json=body).json()
    assert made["job"]["model"] == "net@latest"
    url = f"/v1/schedules/{made['id']}/runs"
    assert client.get(url).json() == {"items": [], "next_cursor": None}
    job = client.post(f"/v1/schedules/{made['id']}/run").json()
    assert job["spec"]["model"] == job["resolved"]["model"]["id"] == sqlite_api.spec()["model"]
    assert job["resolved"]["model"]["name"] == "net"
    with database.write() as connection:
        connection.execute(update(schedules).values(next_run_at=database.clock() // 60 * 60))
    fire_due(database, LIMITS, database.clock())
    waiting, manual = client.get(url).json()["items"]
    assert (manual["tick"], manual["decision"], manual["job"], manual["state"]) == (
        None,
        "submitted",
        job["id"],
        "queued",
    )
    assert (waiting["decision"], waiting["job"], waiting["state"]) == ("waiting", None, None)
    assert job["id"] in waiting["reason"]
    first = client.get(url, params={"limit": 1}).json()
    assert first["items"] == [waiting]
    assert client.get(url, params={"limit": 1, "cursor": first["next_cursor"]}).json()["items"] == [manual]
    assert client.get("/v1/schedules/s0/runs").status_code == 404
    assert client.get(url, params={"cursor": "x"}).status_code == 422


@pytest.mark.parametrize("policy", [{"missed": "skip"}, {"overlap": "queue"}, {"warm_start": False}])
def test_policies_are_changed_by_patch(sqlite_api: RunningApi, policy: dict[str, Any]) -> None:
    body = {"name": "nightly", "cron": "0 3 * * *", "job": sqlite_api.spec()}
    url = sqlite_api.client.post("/v1/schedules", json=body).headers["Location"]
    before = sqlite_api.client.get(url).json()
    assert sqlite_api.client.patch(url, json=policy).json() == {**before, **policy}

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from search.spec import JobSpec
from service.database import Database, db_now
from service.firing import fire_due
from service.leases import Leases
from service.scheduler import tick
from service.schedules import Schedule, Schedules
from service.settings import Settings
from service.tables import DEFAULT_PROJECT, jobs, workers
from tests.service.api import RunningApi
from tests.service.rows import LIMITS, add_job, jobs_of, make_spec


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def make(
    database: Database,
    cron: str = "0 3 * * *",
    now: str = "2026-03-01 00:00",
    job: dict[str, Any] | None = None,
    **change: Any,
) -> Schedule:
    """job: what differs from the usual one; of its data too."""
    spec = make_spec(database).model_dump(mode="json")
    changed = {**spec, **(job or {}), "data": {**spec["data"], **(job or {}).get("data", {})}}
    fields = {"name": "nightly", "timezone": "UTC", "enabled": True, **change}
    return Schedules(database, DEFAULT_PROJECT, LIMITS).create(
        cron=cron, job=JobSpec.model_validate(changed), now=at(now), **fields
    )


def count_jobs(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(jobs)).scalar_one())


def test_a_due_schedule_fires_once_and_moves_on(database: Database) -> None:
    made = make(database)
    schedules = Schedules(database, DEFAULT_PROJECT, LIMITS)
    assert fire_due(database, LIMITS, at("2026-03-01 02:59")) == []
    (job_id,) = fire_due(database, LIMITS, at("2026-03-01 03:00"))
    assert fire_due(database, LIMITS, at("2026-03-01 03:00")) == []
    after = schedules.get(made.id)
    assert (after.next_run_at, after.last_job) == (at("2026-03-02 03:00"), job_id)
    row = jobs_of(database).get(job_id)
    assert (row.state, row.schedule_id, row.spec) == ("queued", made.id, made.job)


def test_missed_moments_are_fired_once_not_one_by_one(database: Database) -> None:
    made = make(database, cron="0 * * * *")
    assert len(fire_due(database, LIMITS, at("2026-03-04 10:30"))) == 1
    assert Schedules(database, DEFAULT_PROJECT, LIMITS).get(made.id).next_run_at == at("2026-03-04 11:00")


def test_many_schedulers_fire_one_job(database: Database) -> None:
    make(database)
    with ThreadPoolExecutor(6) as pool:
        fired = list(pool.map(lambda _: fire_due(database, LIMITS, at("2026-03-01 03:00")), range(6)))
    assert sorted(len(ids) for ids in fired) == [0, 0, 0, 0, 0, 1]
    assert count_jobs(database) == 1


def test_a_disabled_schedule_does_not_fire(database: Database) -> None:
    made = make(database)
    schedules = Schedules(database, DEFAULT_PROJECT, LIMITS)
    off = schedules.change(made.id, {"enabled": False}, at("2026-03-01 00:00"))
    assert off.next_run_at is None
    assert fire_due(database, LIMITS, at("2027-01-01 00:00")) == []
    on = schedules.change(made.id, {"enabled": True, "cron": "0 5 * * *"}, at("2026-03-01 00:00"))
    assert on.next_run_at == at("2026-03-01 05:00")


def test_a_change_beside_the_timetable_loses_no_tick(database: Database) -> None:
    made = make(database)
    schedules = Schedules(database, DEFAULT_PROJECT, LIMITS)
    late = at("2026-03-01 03:00") + 0.3
    for fields in ({"name": "renamed"}, {"enabled": True}, {"overlap": "queue", "cron": "0 3 * * *"}, {}):
        assert schedules.change(made.id, fields, late).next_run_at == at("2026-03-01 03:00"), fields
    assert len(fire_due(database, LIMITS, late)) == 1
    assert schedules.change(made.id, {"timezone": "Asia/Tokyo"}, late).next_run_at == at("2026-03-01 18:00")


def test_a_tick_fires_settles_and_forgets_silent_workers(database: Database, settings: Settings) -> None:
    make(database)
    job_id = add_job(database)
    assert Leases(database).claim("w", 10) is not None
    jobs_of(database).steer(job_id, "cancel")
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(lease_expires_at=db_now() - 1))
        for name, age in (("alive", 0), ("dead", 10_000)):
            beat = {"started_at": db_now(), "heartbeat_at": db_now() - age}
            connection.execute(insert(workers).values(id=name, host="h", pid=1, **beat))
    tick(database, settings, at("2026-03-01 03:00"))
    assert count_jobs(database) == 2
    assert jobs_of(database).get(job_id).state == "cancelled"
    with database.read() as connection:
        assert list(connection.scalars(select(workers.c.id))) == ["alive"]


def test_schedules_over_http(sqlite_api: RunningApi) -> None:
    client = sqlite_api.client
    body = {"name": "nightly", "cron": "0 3 * * *", "timezone": "Europe/Berlin", "job": sqlite_api.spec()}
    response = client.post("/v1/schedules", json=body)
    assert response.status_code == 201, response.text
    made = response.json()
    assert made["enabled"] is True
    assert (made["missed"], made["overlap"], made["warm_start"]) == ("run_once", "skip", True)
    assert made["last_job"] is None
    assert datetime.fromisoformat(made["next_run_at"]) > datetime.now(UTC)
    url = response.headers["Location"]
    assert client.get(url).json() == made
    assert client.get("/v1/schedules").json() == {"items": [made], "next_cursor": None}

    run = client.post(f"{url}/run")
    assert run.status_code == 202
    assert run.json()["schedule"] == made["id"]
    changed = client.patch(url, json={"enabled": False, "name": "weekly"}).json()
    assert (changed["name"], changed["enabled"], changed["next_run_at"]) == ("weekly", False, None)
    assert changed["last_job"] == run.json()["id"]
    assert changed["cron"] == "0 3 * * *"

    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == 404
    assert client.delete(url).status_code == 404
    assert client.post(f"{url}/run").status_code == 404
    job = client.get(run.headers["Location"]).json()
    assert (job["state"], job["schedule"]) == ("queued", None)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cron": "every day"}, "cron"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"missed": "never"}, "missed"),
        ({"overlap": "all"}, "overlap"),
        ({"name": ""}, "name"),
        ({"job": {"model": "m"}}, "job.data"),
        ({"until": 1}, "until"),
    ],
)
def test_a_bad_schedule_is_refused_by_field(shared_api: RunningApi, change: dict[str, Any], field: str) -> None:
    body = {"name": "nightly", "cron": "0 3 * * *", "job": shared_api.spec(), **change}
    response = shared_api.client.post("/v1/schedules", json=body)
    assert response.status_code == 422
    assert field in [e["field"] for e in response.json()["errors"]]
    assert shared_api.client.get("/v1/schedules").json() == {"items": [], "next_cursor": None}


def test_a_schedule_with_an_unknown_model_names_the_field(shared_api: RunningApi) -> None:
    body = {"name": "nightly", "cron": "0 3 * * *", "job": shared_api.spec(model="m0")}
    response = shared_api.client.post("/v1/schedules", json=body)
    assert [e["field"] for e in response.json()["errors"]] == ["job.model"]

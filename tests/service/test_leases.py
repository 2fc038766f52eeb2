from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, update

from search.records import Trial
from service.attempts import KEPT
from service.blobs import BlobStore
from service.database import Database, db_now
from service.jobs import Wish
from service.leases import LOST, Lease, Leases
from service.ledger import SqlLedger
from service.settings import Settings
from service.tables import jobs, trials
from tests.service.rows import add_job, jobs_of


def expire(database: Database) -> None:
    with database.write() as connection:
        connection.execute(update(jobs).values(lease_expires_at=db_now() - 0.01))


def ledger_of(database: Database, lease: Lease, settings: Settings) -> SqlLedger:
    return SqlLedger(database, BlobStore(settings.blobs_dir), lease)


def test_the_oldest_queued_job_comes_first(database: Database) -> None:
    ids = [add_job(database, f"job {n}") for n in range(3)]
    with database.write() as connection:
        for age, job_id in enumerate(reversed(ids)):
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(created_at=db_now() - age))
    leases = Leases(database)
    claimed = [leases.claim("w", 10) for _ in range(4)]
    assert [lease and lease.job_id for lease in claimed] == [*ids, None]


def test_a_claimed_job_runs_and_is_not_claimed_again_while_its_lease_lasts(database: Database) -> None:
    job_id = add_job(database)
    leases = Leases(database)
    assert leases.claim("one", 10) is not None
    assert leases.claim("two", 10) is None
    row = jobs_of(database).get(job_id)
    assert (row.state, row.lease_worker) == ("running", "one")
    assert row.started_at is not None


def test_an_expired_lease_is_taken_over_and_the_job_keeps_running(database: Database) -> None:
    job_id = add_job(database)
    leases = Leases(database)
    first = leases.claim("one", 10)
    assert first is not None
    started = jobs_of(database).get(job_id).started_at
    expire(database)
    second = leases.claim("two", 10)
    assert second is not None
    assert second.token > first.token
    assert not leases.renew(first, 10)
    assert leases.renew(second, 10)
    row = jobs_of(database).get(job_id)
    assert (row.state, row.started_at) == ("running", started)


def test_a_heartbeat_keeps_the_lease(database: Database) -> None:
    add_job(database)
    leases = Leases(database)
    lease = leases.claim("one", 10)
    assert lease is not None
    expire(database)
    assert leases.renew(lease, 10)
    assert leases.claim("two", 10) is None


def test_many_claimers_never_get_the_same_job(database: Database) -> None:
    ids = {add_job(database, f"job {n}") for n in range(12)}
    leases = Leases(database)

    def claim_all(worker: int) -> list[str]:
        found: list[str] = []
        while (lease := leases.claim(f"w{worker}", 30)) is not None:
            found.append(lease.job_id)
        return found

    with ThreadPoolExecutor(6) as pool:
        claimed = [job_id for found in pool.map(claim_all, range(6)) for job_id in found]
    # SKIP LOCKED lets a claimer find nothing while others hold the last rows; nobody may get a job twice.
    assert sorted(claimed) == sorted(ids)


def test_a_released_job_is_taken_up_at_once(database: Database) -> None:
    job_id = add_job(database)
    leases = Leases(database)
    lease = leases.claim("one", 10)
    assert lease is not None
    assert leases.release(lease)
    assert jobs_of(database).get(job_id).state == "queued"
    assert not leases.release(lease), "a second release must not touch the next holder"
    again = leases.claim("two", 10)
    assert again is not None
    assert not leases.renew(lease, 10)


def test_a_paused_job_is_not_claimed_until_it_is_resumed(database: Database) -> None:
    job_id = add_job(database)
    owner = jobs_of(database)
    owner.steer(job_id, "pause")
    assert Leases(database).claim("w", 10) is None
    owner.steer(job_id, "resume")
    assert Leases(database).claim("w", 10) is not None


def abandoned_state(database: Database) -> Any:
    expire(database)
    return Leases(database).settle_abandoned()


def test_jobs_that_their_owner_ended_while_the_worker_was_dead_are_settled(
    database: Database, settings: Settings
) -> None:
    wishes = {"cancel": "cancelled", "pause": "paused", None: "running"}
    leases, owner = Leases(database), jobs_of(database)
    by_wish: dict[str, str | None] = {}
    for wish in wishes:
        job_id = add_job(database)
        by_wish[job_id] = wish
        lease = leases.claim("w", 10)
        assert lease is not None
        ledger_of(database, lease, settings).put_trial(Trial(number=0, state="running"))
        if wish == "cancel" or wish == "pause":
            owner.steer(job_id, "cancel" if wish == "cancel" else "pause")
    assert leases.settle_abandoned() == [], "their leases last"
    assert set(abandoned_state(database)) == {j for j, wish in by_wish.items() if wish is not None}
    for job_id, wish in by_wish.items():
        assert owner.get(job_id).state == wishes[wish]
    with database.read() as connection:
        states = {r.job_id: r.state for r in connection.execute(select(trials))}
    assert {by_wish[j]: s for j, s in states.items()} == {"cancel": "failed", "pause": "running", None: "running"}


def test_a_job_that_kills_its_workers_is_given_up(database: Database) -> None:
    job_id = add_job(database, retry={"max_attempts": 3})
    leases = Leases(database)
    for _ in range(3):
        assert leases.claim("w", 10) is not None
        assert leases.settle_abandoned() == []
        expire(database)
    assert leases.claim("w", 10) is None
    assert leases.settle_abandoned() == [job_id]
    row = jobs_of(database).get(job_id)
    assert row.state == "failed"
    assert "3 attempts in a row" in row.reason
    assert [(a["worker"], a["reason"]) for a in row.attempts] == [("w", LOST)] * 3
    assert all(a["ended_at"] >= a["started_at"] for a in row.attempts)


def test_a_finished_trial_clears_the_count_of_dead_workers(database: Database, settings: Settings) -> None:
    add_job(database)
    leases = Leases(database)
    for number in range(7):
        lease = leases.claim("w", 10)
        assert lease is not None
        ledger = ledger_of(database, lease, settings)
        ledger.put_trial(Trial(number=number, state="running"))
        ledger.put_trial(Trial(number=number, state="completed", metric=0.5))
        expire(database)
    assert leases.settle_abandoned() == []


def test_an_attempt_that_ends_outside_is_repeated_after_growing_pauses(database: Database) -> None:
    job_id = add_job(database, retry={"max_attempts": 3, "delay_s": 40})
    leases = Leases(database)
    pauses = []
    for _ in range(2):
        lease = leases.claim("w", 10)
        assert lease is not None
        assert leases.fail_outside(lease, "No space left on device")
        assert not leases.fail_outside(lease, "again"), "the lease is over"
        row = jobs_of(database).get(job_id)
        assert (row.state, row.reason) == ("queued", "is tried again: No space left on device")
        pauses.append(row.retry_at - row.attempts[-1]["ended_at"])
        assert leases.claim("w", 10) is None, "not before its time"
        with database.write() as connection:
            connection.execute(update(jobs).values(retry_at=db_now() - 0.01))
    assert pauses == [pytest.approx(40, abs=2), pytest.approx(80, abs=2)]
    lease = leases.claim("w", 10)
    assert lease is not None
    assert leases.fail_outside(lease, "No space left on device")
    row = jobs_of(database).get(job_id)
    assert row.state == "failed"
    assert row.reason.endswith("No space left on device")
    assert [a["reason"] for a in row.attempts] == ["No space left on device"] * 3


@pytest.mark.parametrize(("wish", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_job_that_its_worker_gives_back_obeys_its_owner(database: Database, wish: Wish, state: str) -> None:
    job_id = add_job(database)
    leases, owner = Leases(database), jobs_of(database)
    lease = leases.claim("w", 10)
    assert lease is not None
    owner.steer(job_id, wish)
    assert leases.release(lease)
    row = owner.get(job_id)
    assert (row.state, row.lease_worker) == (state, None)
    if wish == "pause":
        owner.steer(job_id, "resume")
        assert leases.claim("w", 10) is not None
        assert owner.get(job_id).directive == "run"


def test_a_long_list_of_attempts_keeps_the_newest(database: Database) -> None:
    job_id = add_job(database)
    leases = Leases(database)
    for number in range(KEPT + 5):
        lease = leases.claim(f"w{number}", 10)
        assert lease is not None
        assert leases.release(lease)
    attempts = jobs_of(database).get(job_id).attempts
    assert [a["worker"] for a in attempts] == [f"w{n}" for n in range(5, KEPT + 5)]

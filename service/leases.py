"""Which worker may run a job: a lease with a heartbeat and a fencing token, by the database's clock.

The token is raised whenever a lease changes hands. Every write of a coordinator compares it, so that a worker that
was taken for dead and comes back can no longer change anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, or_, select, update

from search.records import JobState
from service.attempts import begun, ended
from service.database import Database, db_now
from service.job_end import note_end
from service.tables import jobs
from service.trials import settle_running_trials

LOST = "the worker was lost: no sign of life from it within its lease"
_LONGEST_DELAY_S = 600.0


@dataclass(frozen=True)
class Lease:
    """token: fencing token of this holder. elapsed_s: what earlier coordinators of the job have spent."""

    job_id: str
    token: int
    worker: str
    elapsed_s: float


# Seconds between the present holder's start and its last sign of life; 0 without a holder.
_spent_until_heartbeat = case(
    (jobs.c.lease_acquired_at.is_not(None), jobs.c.lease_heartbeat_at - jobs.c.lease_acquired_at), else_=0.0
)
# The same up to now, for a holder that gives the lease back itself.
spent_until_now = case((jobs.c.lease_acquired_at.is_not(None), db_now() - jobs.c.lease_acquired_at), else_=0.0)
NO_LEASE = {
    "lease_token": jobs.c.lease_token + 1,
    "lease_worker": None,
    "lease_acquired_at": None,
    "lease_heartbeat_at": None,
    "lease_expires_at": None,
}
_abandoned = and_(jobs.c.state == "running", jobs.c.lease_expires_at < db_now())
# A job that was lost so often in a row, with no trial ended in between, would be lost the next time too.
_hopeless = jobs.c.lease_losses >= jobs.c.max_attempts - 1
_queue = jobs.alias("queue")
_others = jobs.alias("others")
_running_in_project = (
    select(func.count())
    .where(_others.c.project_id == _queue.c.project_id, _others.c.state == "running")
    .scalar_subquery()
)
_CLAIM_LOCK = 7_238_110_452  # an arbitrary number for PostgreSQL's advisory lock


class Leases:
    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, worker: str, lease_s: float, *, max_running: int | None = None) -> Lease | None:
        """Takes a queued job, or one whose lease has run out; None if there is none. One statement decides.

        Higher priority first, then the oldest. max_running: a project with so many running jobs has to wait.
        """
        queued = and_(_queue.c.state == "queued", or_(_queue.c.retry_at.is_(None), _queue.c.retry_at <= db_now()))
        if max_running is not None:
            queued = and_(queued, _running_in_project < max_running)
        first = (
            select(_queue.c.id)
            .where(
                or_(
                    queued,
                    and_(
                        _queue.c.state == "running",
                        _queue.c.lease_expires_at < db_now(),
                        _queue.c.lease_losses < _queue.c.max_attempts - 1,
                    ),
                )
            )
            .order_by(_queue.c.priority.desc(), _queue.c.created_at, _queue.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)  # SQLite has one writer at a time and needs no row lock
            .scalar_subquery()
        )
        statement = (
            update(jobs)
            .where(jobs.c.id == first)
            .values(
                state="running",
                reason=None,
                retry_at=None,
                started_at=case((jobs.c.started_at.is_(None), db_now()), else_=jobs.c.started_at),
                rev=jobs.c.rev + 1,
                elapsed_s=jobs.c.elapsed_s + _spent_until_heartbeat,
                lease_losses=jobs.c.lease_losses + case((jobs.c.state == "running", 1), else_=0),
                lease_token=jobs.c.lease_token + 1,
                lease_worker=worker,
                lease_acquired_at=db_now(),
                lease_heartbeat_at=db_now(),
                lease_expires_at=db_now() + lease_s,
            )
            .returning(
                jobs.c.id, jobs.c.lease_token, jobs.c.elapsed_s, jobs.c.attempts, jobs.c.lease_acquired_at.label("now")
            )
        )
        with self._database.write() as connection:
            if max_running is not None and not self._database.is_sqlite:
                # Two claims at once would both see one place left.
                connection.execute(select(func.pg_advisory_xact_lock(_CLAIM_LOCK)))
            row = connection.execute(statement).one_or_none()
            if row is None:
                return None
            attempts = begun(ended(row.attempts, row.now, LOST), worker, row.now)
            connection.execute(update(jobs).where(jobs.c.id == row.id).values(attempts=attempts))
        return Lease(row.id, row.lease_token, worker, row.elapsed_s)

    def renew(self, lease: Lease, lease_s: float) -> bool:
        """A heartbeat; False if another worker holds the job, or nobody."""
        statement = (
            update(jobs)
            .where(jobs.c.id == lease.job_id, jobs.c.lease_token == lease.token)
            .values(lease_heartbeat_at=db_now(), lease_expires_at=db_now() + lease_s)
        )
        with self._database.write() as connection:
            return connection.execute(statement).rowcount == 1

    def release(self, lease: Lease) -> bool:
        """Puts the job back into the queue, to be taken up at once; False if the lease was lost already."""
        return self._end(lease, "the worker was told to stop", lost=False)

    def fail_outside(self, lease: Lease, reason: str) -> bool:
        """The attempt ended for a reason outside the job: queued again after a pause, or failed after too many.

        False if the lease was lost already.
        """
        return self._end(lease, reason, lost=True)

    def _end(self, lease: Lease, reason: str, *, lost: bool) -> bool:
        mine = jobs.c.id == lease.job_id, jobs.c.lease_token == lease.token
        with self._database.write() as connection:
            row = connection.execute(_held.where(*mine).with_for_update()).one_or_none()
            if row is None:
                return False
            if row.directive != "run" or (lost and row.lease_losses + 1 >= row.max_attempts):
                _settle(connection, row, reason, spent_until_now)
                return True
            change: dict[str, Any] = {"lease_losses": row.lease_losses + 1 if lost else row.lease_losses}
            if lost:
                delay = min(row.spec.get("retry", {}).get("delay_s", 10.0) * 2.0**row.lease_losses, _LONGEST_DELAY_S)
                change |= {"reason": f"is tried again: {reason}", "retry_at": db_now() + delay}
            _give_back(connection, row, "queued", reason, change, spent_until_now)
        return True

    def settle_abandoned(self) -> list[str]:
        """Ends or pauses running jobs whose worker is gone and which no worker shall take up; their ids.

        These are jobs that their owner has cancelled or paused meanwhile, and jobs that kill their workers.
        """
        abandoned = _held.where(_abandoned, or_(jobs.c.directive != "run", _hopeless))
        with self._database.write() as connection:
            found = connection.execute(abandoned.with_for_update(skip_locked=True)).all()
            for row in found:
                _settle(connection, row, LOST, _spent_until_heartbeat)
        return [row.id for row in found]


_held = select(
    jobs.c.id,
    jobs.c.directive,
    jobs.c.spec,
    jobs.c.attempts,
    jobs.c.lease_losses,
    jobs.c.max_attempts,
    db_now().label("now"),
)


def _settle(connection: Connection, row: Row[Any], reason: str, spent: ColumnElement[float]) -> None:
    """Does what the owner has asked for; gives up what they want to go on. The transaction holds the row."""
    if row.directive == "pause":
        change: dict[str, Any] = {"directive": "run", "reason": "paused by its owner"}
        _give_back(connection, row, "paused", reason, change, spent)
        return
    if row.directive == "cancel":
        state: JobState = "cancelled"
        shown = "cancelled by its owner"
    else:
        state, losses = "failed", row.lease_losses + 1
        shown = f"{losses} attempts in a row were lost before a trial ended, the last one so: {reason}"
    _give_back(connection, row, state, reason, {"reason": shown, "finished_at": db_now()}, spent)
    settle_running_trials(connection, row.id, shown)
    note_end(connection, row.id)


def _give_back(
    connection: Connection,
    row: Row[Any],
    state: JobState,
    reason: str,
    change: Mapping[str, Any],
    spent: ColumnElement[float],
) -> None:
    """Ends the attempt for this reason. spent: seconds that it took."""
    attempts = ended(row.attempts, row.now, reason)
    values = {**NO_LEASE, "rev": jobs.c.rev + 1, "elapsed_s": jobs.c.elapsed_s + spent, "attempts": attempts}
    connection.execute(update(jobs).where(jobs.c.id == row.id).values(state=state, **values, **change))

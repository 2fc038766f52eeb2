"""Which worker may run a job: a lease with a heartbeat and a fencing token, by the database's clock.

The token is raised whenever a lease changes hands. Every write of a coordinator compares it, so that a worker that
was taken for dead and comes back can no longer change anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, and_, case, func, or_, select, update

from service.database import Database, db_now
from service.job_end import note_end
from service.tables import jobs
from service.trials import settle_running_trials

# A job that has killed this many workers in a row, with no trial ended in between, would kill the next one too.
MAX_LOSSES = 5


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
        """Takes a queued job, or one whose lease has run out; None if there is none. One statement.

        Higher priority first, then the oldest. max_running: a project with so many running jobs has to wait.
        """
        queued = _queue.c.state == "queued"
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
                        _queue.c.lease_losses < MAX_LOSSES - 1,
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
            .returning(jobs.c.id, jobs.c.lease_token, jobs.c.elapsed_s)
        )
        with self._database.write() as connection:
            if max_running is not None and not self._database.is_sqlite:
                # Two claims at once would both see one place left.
                connection.execute(select(func.pg_advisory_xact_lock(_CLAIM_LOCK)))
            row = connection.execute(statement).one_or_none()
        return None if row is None else Lease(row.id, row.lease_token, worker, row.elapsed_s)

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
        statement = (
            update(jobs)
            .where(jobs.c.id == lease.job_id, jobs.c.lease_token == lease.token)
            .values(state="queued", rev=jobs.c.rev + 1, elapsed_s=jobs.c.elapsed_s + spent_until_now, **NO_LEASE)
        )
        with self._database.write() as connection:
            return connection.execute(statement).rowcount == 1

    def settle_abandoned(self) -> list[str]:
        """Ends or pauses running jobs whose worker is gone and which no worker shall take up; their ids.

        These are jobs that their owner has cancelled or paused meanwhile, and jobs that kill their workers.
        """
        hopeless = or_(jobs.c.directive != "run", jobs.c.lease_losses >= MAX_LOSSES - 1)
        query = select(jobs.c.id, jobs.c.directive).where(_abandoned, hopeless).with_for_update(skip_locked=True)
        with self._database.write() as connection:
            found = connection.execute(query).all()
            for job_id, directive in found:
                _settle(connection, job_id, directive)
        return [job_id for job_id, _ in found]


def _settle(connection: Connection, job_id: str, directive: str) -> None:
    if directive == "pause":
        change: dict[str, object] = {"state": "paused", "directive": "run", "reason": "paused by its owner"}
    elif directive == "cancel":
        change = {"state": "cancelled", "reason": "cancelled by its owner", "finished_at": db_now()}
    else:
        reason = f"{MAX_LOSSES} workers in a row died on this job before a trial ended; see the worker's log (memory?)"
        change = {"state": "failed", "reason": reason, "finished_at": db_now()}
    elapsed = jobs.c.elapsed_s + _spent_until_heartbeat
    values = {**change, **NO_LEASE, "rev": jobs.c.rev + 1, "elapsed_s": elapsed}
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))
    if directive != "pause":
        settle_running_trials(connection, job_id, str(change["reason"]))
        note_end(connection, job_id)

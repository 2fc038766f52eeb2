"""What follows from the end of a job, in the transaction that ends it: its comparison and its events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, select, update

from service.comparison import MAX_POINTS, Side, compare
from service.outbox import note_job_end
from service.tables import jobs, trials
from service.trials import document


def note_end(connection: Connection, job_id: str) -> None:
    """The job's row is in its last state and held by the caller's transaction."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one()
    if row.state == "succeeded" and row.schedule_id is not None and row.best is not None:
        before = last_good(connection, row.schedule_id, other_than=job_id)
        if before is not None:
            compared = compare(_side(connection, before), _side(connection, row))
            statement = update(jobs).where(jobs.c.id == job_id).values(previous=compared)
            row = connection.execute(statement.returning(jobs)).one()
    note_job_end(connection, row)


def last_good(connection: Connection, schedule_id: str, *, other_than: str | None = None) -> Row[Any] | None:
    """The schedule's job that succeeded last and has a best trial."""
    query = select(jobs).where(jobs.c.schedule_id == schedule_id, jobs.c.state == "succeeded", jobs.c.best.is_not(None))
    if other_than is not None:
        query = query.where(jobs.c.id != other_than)
    return connection.execute(query.order_by(jobs.c.finished_at.desc()).limit(1)).one_or_none()


def _side(connection: Connection, row: Row[Any]) -> Side:
    front = select(trials).where(trials.c.job_id == row.id, trials.c.on_front.is_(True)).order_by(trials.c.number)
    at = row.finished_at
    return Side(
        job=row.id,
        finished_at=None if at is None else datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z"),
        outcome=row.outcome,
        spec=row.spec,
        best=row.best,
        report=row.report or {},
        front=[document(trial) for trial in connection.execute(front.limit(MAX_POINTS))],
    )

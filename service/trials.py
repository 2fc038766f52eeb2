"""Reading what the search has written: trials by revision, the front, log lines, artifacts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from search.records import TrialState
from service.database import Database, db_now
from service.tables import artifacts, job_logs, jobs, trials
from service.trial_summary import summary

CUT_OFF = "cut off: "  # how the reason of a trial begins whose job ended while it ran


@dataclass(frozen=True)
class Artifact:
    name: str
    filename: str
    sha256: str
    bytes: int


class Trials:
    """Documents are `search.records.Trial` as JSON plus `rev`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def changed(self, job_id: str, *, after_rev: int, limit: int) -> list[dict[str, Any]]:
        """Trials changed after a revision, in order of their change; each has a revision of its own."""
        query = (
            select(trials)
            .where(trials.c.job_id == job_id, trials.c.rev > after_rev)
            .order_by(trials.c.rev)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [document(row) for row in connection.execute(query)]

    def one(self, job_id: str, number: int) -> dict[str, Any] | None:
        query = select(trials).where(trials.c.job_id == job_id, trials.c.number == number)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else document(row)

    def all(self, job_id: str) -> list[dict[str, Any]]:
        """In order of their number."""
        with self._database.read() as connection:
            return all_trials(connection, job_id)

    def front(self, job_id: str) -> list[dict[str, Any]]:
        """The feasible trials that no other one beats in everything, as the search has marked them."""
        query = select(trials).where(trials.c.job_id == job_id, trials.c.on_front.is_(True)).order_by(trials.c.number)
        with self._database.read() as connection:
            return [document(row) for row in connection.execute(query)]

    def logs(self, job_id: str, *, after: int, limit: int) -> list[Row[Any]]:
        query = (
            select(job_logs)
            .where(job_logs.c.job_id == job_id, job_logs.c.seq > after)
            .order_by(job_logs.c.seq)
            .limit(limit)
        )
        with self._database.read() as connection:
            return list(connection.execute(query))

    def artifact(self, job_id: str, name: str) -> Artifact | None:
        query = select(artifacts).where(artifacts.c.job_id == job_id, artifacts.c.name == name)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return Artifact(name=row.name, filename=row.filename, sha256=row.sha256, bytes=row.bytes)


def document(row: Row[Any]) -> dict[str, Any]:
    """A trial as the API shows it. The columns are the truth for what changes without the search's document."""
    return {**row.document, "on_front": row.on_front, "rev": row.rev}


def all_trials(connection: Connection, job_id: str) -> list[dict[str, Any]]:
    query = select(trials).where(trials.c.job_id == job_id).order_by(trials.c.number)
    return [document(row) for row in connection.execute(query)]


def settle_running_trials(connection: Connection, job_id: str, reason: str) -> None:
    """No trial of a job that has ended stays `running`: those that were cut off become `failed` with the reason.

    The caller's transaction holds the job's row.
    """
    _change_states(connection, job_id, "running", "failed", lambda _: f"{CUT_OFF}{reason}")


def reopen_cut_off_trials(connection: Connection, job_id: str) -> None:
    """What `settle_running_trials` has done, undone: the next coordinator goes on with them as after a crash."""
    _change_states(connection, job_id, "failed", "running", lambda was: None if was.startswith(CUT_OFF) else was)


def _change_states(
    connection: Connection, job_id: str, before: TrialState, after: TrialState, reason: Callable[[str], str | None]
) -> None:
    """reason: the new one by the old one; a trial whose reason it leaves as it is stays as it is."""
    query = select(trials).where(trials.c.job_id == job_id, trials.c.state == before).order_by(trials.c.number)
    found = connection.execute(query).all()
    for row in found:
        was = row.document.get("reason") or ""
        new = reason(was)
        if new == was:
            continue
        rev = raise_revision(connection, job_id)
        document = {**row.document, "state": after, "reason": new}
        connection.execute(
            update(trials)
            .where(trials.c.job_id == job_id, trials.c.number == row.number)
            .values(rev=rev, state=after, document=document, summary=summary(document), updated_at=db_now())
        )
    if found:
        counts = count_trials(connection, job_id)
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(trial_counts=counts))


def count_trials(connection: Connection, job_id: str) -> dict[str, int]:
    """By state; looks at all of them. `jobs.trial_counts` has the same, kept with each write."""
    query = select(trials.c.state, func.count().label("trials")).where(trials.c.job_id == job_id)
    return {row.state: row.trials for row in connection.execute(query.group_by(trials.c.state))}


def raise_revision(connection: Connection, job_id: str) -> int:
    statement = update(jobs).where(jobs.c.id == job_id).values(rev=jobs.c.rev + 1).returning(jobs.c.rev)
    return int(connection.execute(statement).scalar_one())

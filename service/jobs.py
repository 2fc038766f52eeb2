"""Rows of jobs as their owner sees and steers them: create, read, list, cancel, pause, resume, retry.

What the search writes goes through `service.ledger`; who may write, through `service.leases`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from search.records import JobState
from search.spec import JobSpec
from service.catalogue import hold_inputs
from service.database import Database, db_now
from service.idempotency import Once, done_before, repeated
from service.job_end import note_end
from service.limits import Limits
from service.pages import Page, newest_first
from service.projects import lock_project
from service.refusals import Unknown, WrongState
from service.tables import jobs
from service.trials import reopen_cut_off_trials, settle_running_trials

TERMINAL: tuple[JobState, ...] = ("succeeded", "failed", "cancelled")
Wish = Literal["cancel", "pause", "resume"]
_revision = select(jobs.c.rev).where(jobs.c.id == bindparam("job"), jobs.c.project_id == bindparam("project"))


def new_job_id() -> str:
    return f"j{secrets.token_hex(8)}"


def insert_job(
    connection: Connection,
    project_id: str,
    spec: JobSpec,
    limits: Limits,
    *,
    job_id: str,
    schedule_id: str | None = None,
    names: Mapping[str, Any] | None = None,
) -> None:
    """A new queued job inside the caller's transaction. spec: with ids only. names: what stood in their place.

    Raises LimitReached, Gone.
    """
    lock_project(connection, project_id)
    limits.check_queue(connection, project_id)
    hold_inputs(connection, project_id, spec)
    connection.execute(
        insert(jobs).values(
            id=job_id,
            project_id=project_id,
            name=spec.name,
            priority=spec.priority,
            model_id=spec.model,
            schedule_id=schedule_id,
            spec=spec.model_dump(mode="json"),
            resolved=dict(names) if names else None,
            state="queued",
            directive="run",
            rev=1,
            created_at=db_now(),
            lease_token=0,
            lease_losses=0,
            max_attempts=spec.retry.max_attempts,
            elapsed_s=0.0,
        )
    )


class Jobs:
    """Of one project."""

    def __init__(self, database: Database, project_id: str) -> None:
        self._database = database
        self._project_id = project_id

    def get(self, job_id: str) -> Row[Any]:
        """Raises Unknown."""
        with self._database.read() as connection:
            return find_job(connection, self._project_id, job_id)

    def revision(self, job_id: str) -> int:
        """One indexed read: what a poll costs when nothing has changed. Raises Unknown."""
        with self._database.read() as connection:
            rev = connection.execute(_revision, {"job": job_id, "project": self._project_id}).scalar_one_or_none()
        if rev is None:
            raise Unknown("job", job_id)
        return int(rev)

    def create(
        self, spec: JobSpec, limits: Limits, *, names: Mapping[str, Any] | None = None, once: Once | None = None
    ) -> Row[Any]:
        """The job; that of the first request if `once` was used before. Raises LimitReached, KeyReused, Gone."""
        job_id = new_job_id()
        with self._database.write() as connection:
            done = done_before(connection, once, job_id)
            if done is not None:
                with repeated():
                    return find_job(connection, self._project_id, done)
            insert_job(connection, self._project_id, spec, limits, job_id=job_id, names=names)
            return find_job(connection, self._project_id, job_id)

    def page(self, *, state: JobState | None, limit: int, cursor: str | None) -> Page:
        """Newest first. Raises BadCursor."""
        query = select(jobs).where(jobs.c.project_id == self._project_id)
        if state is not None:
            query = query.where(jobs.c.state == state)
        with self._database.read() as connection:
            return newest_first(connection, query, jobs, limit=limit, cursor=cursor)

    def steer(self, job_id: str, wish: Wish, *, once: Once | None = None) -> Row[Any]:
        """Notes what the owner wants. A job without a coordinator changes at once, a running one within seconds.

        Asking twice for the same is no error. Raises Unknown, WrongState, KeyReused.
        """
        with self._database.write() as connection:
            row = find_job(connection, self._project_id, job_id, lock=True)
            if done_before(connection, once, job_id) is not None:
                return row
            steer_job(connection, row, wish)
            return find_job(connection, self._project_id, job_id)

    def retry(self, job_id: str, limits: Limits, *, once: Once | None = None) -> Row[Any]:
        """Queues a failed or cancelled job again, to go on from its trials.

        Raises Unknown, WrongState, LimitReached, KeyReused, Gone.
        """
        with self._database.write() as connection:
            lock_project(connection, self._project_id)
            row = find_job(connection, self._project_id, job_id, lock=True)
            if done_before(connection, once, job_id) is not None:
                return row
            if row.state not in ("failed", "cancelled"):
                raise WrongState(f"the job is {row.state}; only a job that has failed or was cancelled can be retried")
            limits.check_queue(connection, self._project_id)
            hold_inputs(connection, self._project_id, JobSpec.model_validate(row.spec))
            fresh: dict[str, Any] = {
                "directive": "run",
                "reason": None,
                "outcome": None,
                "report": None,
                "previous": None,
            }
            change = {**fresh, "state": "queued", "finished_at": None, "rev": jobs.c.rev + 1}
            change |= {"lease_losses": 0, "retry_at": None}
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(**change))
            reopen_cut_off_trials(connection, job_id)
            return find_job(connection, self._project_id, job_id)


def steer_job(connection: Connection, row: Row[Any], wish: Wish) -> None:
    """row: of the job, locked by the caller's transaction. Raises WrongState."""
    change = _transition(wish, row.state, row.directive)
    if not change:
        return
    if change.get("state") == "cancelled":
        change["finished_at"] = db_now()
    connection.execute(update(jobs).where(jobs.c.id == row.id).values(rev=jobs.c.rev + 1, **change))
    if change.get("state") == "cancelled":
        settle_running_trials(connection, row.id, "the job was cancelled")
        note_end(connection, row.id)


def find_job(connection: Connection, project_id: str, job_id: str, *, lock: bool = False) -> Row[Any]:
    """lock: keeps others from changing the row until the transaction ends. Raises Unknown."""
    query = select(jobs).where(jobs.c.id == job_id, jobs.c.project_id == project_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise Unknown("job", job_id)
    return row


def _transition(wish: Wish, state: JobState, directive: str) -> dict[str, Any]:
    """Columns to change; empty if the wish is fulfilled already. Raises WrongState."""
    match wish, state:
        case "cancel", "queued" | "paused":
            return {"state": "cancelled", "directive": "cancel", "reason": "cancelled by its owner"}
        case "cancel", "running":
            return {} if directive == "cancel" else {"directive": "cancel"}
        case ("cancel", "cancelled") | ("pause", "paused"):
            return {}
        case "pause", "queued":
            return {"state": "paused", "directive": "run"}
        case "pause", "running" if directive != "cancel":
            return {} if directive == "pause" else {"directive": "pause"}
        case "resume", "paused":
            return {"state": "queued", "directive": "run", "reason": None, "retry_at": None}
        case "resume", "running" if directive != "cancel":
            return {} if directive == "run" else {"directive": "run"}
        case "resume", "queued":
            return {}
    allowed = {"cancel": "queued, running or paused", "pause": "queued or running", "resume": "paused"}[wish]
    being = "being cancelled" if state == "running" else state
    raise WrongState(f"the job is {being}; only a job that is {allowed} can be asked to {wish}")

"""Rows of jobs as their owner sees and steers them: create, read, list, cancel, pause, resume.

What the search writes goes through `service.ledger`; who may write, through `service.leases`.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from search.records import JobState
from search.spec import JobSpec
from service.database import Database, db_now
from service.tables import idempotency_keys, jobs
from service.trials import settle_running_trials

TERMINAL: tuple[JobState, ...] = ("succeeded", "failed", "cancelled")
Wish = Literal["cancel", "pause", "resume"]


class UnknownJob(LookupError):
    """No job has this id."""


class WrongState(Exception):
    """The job's state does not allow this; the message says which states do."""


class KeyReused(Exception):
    """The idempotency key was used before with another request."""


class BadCursor(ValueError):
    """The cursor of a list is not one that this API gave out."""


@dataclass(frozen=True)
class JobPage:
    jobs: Sequence[Row[Any]]
    next_cursor: str | None


def insert_job(connection: Connection, spec: JobSpec, *, schedule_id: str | None = None) -> str:
    """A new queued job inside the caller's transaction; its id."""
    job_id = f"j{secrets.token_hex(8)}"
    connection.execute(
        insert(jobs).values(
            id=job_id,
            name=spec.name,
            model_id=spec.model,
            schedule_id=schedule_id,
            spec=spec.model_dump(mode="json"),
            state="queued",
            directive="run",
            rev=1,
            created_at=db_now(),
            lease_token=0,
            lease_losses=0,
            elapsed_s=0.0,
        )
    )
    return job_id


class Jobs:
    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, job_id: str) -> Row[Any]:
        """Raises UnknownJob."""
        with self._database.read() as connection:
            return find_job(connection, job_id)

    def revision(self, job_id: str) -> int:
        """One indexed read: what a poll costs when nothing has changed. Raises UnknownJob."""
        with self._database.read() as connection:
            rev = connection.execute(select(jobs.c.rev).where(jobs.c.id == job_id)).scalar_one_or_none()
        if rev is None:
            raise UnknownJob(job_id)
        return int(rev)

    def create(self, spec: JobSpec, *, key: str | None = None, request_sha256: str = "") -> tuple[Row[Any], bool]:
        """The job and whether it is new. With a key, the same request gives the same job. Raises KeyReused."""
        try:
            with self._database.write() as connection:
                if key is not None:
                    known = _job_of_key(connection, key, request_sha256)
                    if known is not None:
                        return find_job(connection, known), False
                job_id = insert_job(connection, spec)
                if key is not None:
                    row = {"key": key, "request_sha256": request_sha256, "job_id": job_id, "created_at": db_now()}
                    connection.execute(insert(idempotency_keys).values(**row))
                return find_job(connection, job_id), True
        except IntegrityError:
            # PostgreSQL: a request with the same key was committed between our look and our insert.
            if key is None:
                raise
            with self._database.read() as connection:
                known = _job_of_key(connection, key, request_sha256)
                if known is None:
                    raise
                return find_job(connection, known), False

    def page(self, *, state: JobState | None, limit: int, cursor: str | None) -> JobPage:
        """Newest first. Raises BadCursor."""
        query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit + 1)
        if state is not None:
            query = query.where(jobs.c.state == state)
        if cursor is not None:
            at, last = _read_cursor(cursor)
            query = query.where(or_(jobs.c.created_at < at, and_(jobs.c.created_at == at, jobs.c.id < last)))
        with self._database.read() as connection:
            rows = list(connection.execute(query))
        more = len(rows) > limit
        page = rows[:limit]
        return JobPage(page, _write_cursor(page[-1]) if more else None)

    def steer(self, job_id: str, wish: Wish) -> Row[Any]:
        """Notes what the owner wants. A job without a coordinator changes at once, a running one within seconds.

        Asking twice for the same is no error. Raises UnknownJob, WrongState.
        """
        with self._database.write() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == job_id).with_for_update()).one_or_none()
            if row is None:
                raise UnknownJob(job_id)
            change = _transition(wish, row.state, row.directive)
            if change:
                if change.get("state") == "cancelled":
                    change["finished_at"] = db_now()
                connection.execute(update(jobs).where(jobs.c.id == job_id).values(rev=jobs.c.rev + 1, **change))
                if change.get("state") == "cancelled":
                    settle_running_trials(connection, job_id, "the job was cancelled")
            return find_job(connection, job_id)


def find_job(connection: Connection, job_id: str) -> Row[Any]:
    """Raises UnknownJob."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).one_or_none()
    if row is None:
        raise UnknownJob(job_id)
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
            return {"state": "queued", "directive": "run", "reason": None}
        case "resume", "running" if directive != "cancel":
            return {} if directive == "run" else {"directive": "run"}
        case "resume", "queued":
            return {}
    allowed = {"cancel": "queued, running or paused", "pause": "queued or running", "resume": "paused"}[wish]
    being = "being cancelled" if state == "running" else state
    raise WrongState(f"the job is {being}; only a job that is {allowed} can be asked to {wish}")


def _job_of_key(connection: Connection, key: str, request_sha256: str) -> str | None:
    query = select(idempotency_keys).where(idempotency_keys.c.key == key)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.request_sha256 != request_sha256:
        raise KeyReused(key)
    return str(row.job_id)


def _write_cursor(row: Row[Any]) -> str:
    return base64.urlsafe_b64encode(f"{row.created_at!r} {row.id}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[float, str]:
    try:
        at, _, last = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        return float(at), last
    except (binascii.Error, ValueError) as error:
        raise BadCursor(cursor) from error

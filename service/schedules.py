"""Rows of schedules: a job specification and the times at which it is submitted. Time is an argument."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from sqlalchemy import Connection, Row, delete, insert, select, update

from search.spec import JobSpec
from service.catalogue import hold_inputs
from service.database import Database, db_now
from service.idempotency import Once, done_before, repeated
from service.jobs import insert_job, new_job_id
from service.limits import Limits
from service.pages import newest_first
from service.projects import lock_project
from service.refusals import Refusal, Unknown
from service.tables import jobs, schedules

logger = logging.getLogger("bantam.scheduler")


class BadCron(ValueError):
    """The cron expression cannot be read, or never comes true."""


@dataclass(frozen=True)
class Schedule:
    """job: a JobSpec as JSON. next_run_at: seconds since the epoch; None while disabled. last_job: its newest job."""

    id: str
    name: str
    cron: str
    timezone: str
    job: dict[str, Any]
    enabled: bool
    next_run_at: float | None
    last_job: str | None
    created_at: float


def next_run(cron: str, timezone: str, after: float) -> float:
    """The first moment after `after` (seconds since the epoch) that the expression names in that time zone.

    Local times that a clock change skips or repeats run once (Debian's cron does the same). Raises BadCron.
    """
    try:
        moment = next(CronSim(cron, datetime.fromtimestamp(after, ZoneInfo(timezone))))
    except (CronSimError, StopIteration) as error:
        reason = str(error) or "it never comes true"
        raise BadCron(f"{cron!r}: {reason}; write five fields like `0 3 * * *` (daily at 03:00)") from error
    return moment.astimezone(UTC).timestamp()


class Schedules:
    """Of one project."""

    def __init__(self, database: Database, project_id: str, limits: Limits) -> None:
        self._database = database
        self._project_id = project_id
        self._limits = limits

    def create(
        self,
        *,
        name: str,
        cron: str,
        timezone: str,
        job: JobSpec,
        enabled: bool,
        now: float,
        once: Once | None = None,
    ) -> Schedule:
        """Raises BadCron, LimitReached, KeyReused, Gone."""
        due = next_run(cron, timezone, now)
        schedule_id = f"s{secrets.token_hex(8)}"
        with self._database.write() as connection:
            lock_project(connection, self._project_id)
            done = done_before(connection, once, schedule_id)
            if done is not None:
                with repeated():
                    return self._find(connection, done)
            self._limits.check_schedule(connection, self._project_id)
            hold_inputs(connection, self._project_id, job)
            connection.execute(
                insert(schedules).values(
                    id=schedule_id,
                    project_id=self._project_id,
                    name=name,
                    cron=cron,
                    timezone=timezone,
                    job=job.model_dump(mode="json"),
                    enabled=enabled,
                    next_run_at=due if enabled else None,
                    created_at=db_now(),
                )
            )
            return self._find(connection, schedule_id)

    def get(self, schedule_id: str) -> Schedule:
        """Raises Unknown."""
        with self._database.read() as connection:
            return self._find(connection, schedule_id)

    def page(self, *, limit: int, cursor: str | None) -> tuple[list[Schedule], str | None]:
        """Newest first, and the next page's cursor. Raises BadCursor."""
        query = select(schedules).where(schedules.c.project_id == self._project_id)
        with self._database.read() as connection:
            page = newest_first(connection, query, schedules, limit=limit, cursor=cursor)
            return [_schedule(connection, row) for row in page.rows], page.next_cursor

    def change(self, schedule_id: str, fields: Mapping[str, Any], now: float) -> Schedule:
        """Sets columns and works out the next run anew. Raises Unknown, BadCron, Gone."""
        with self._database.write() as connection:
            old = self._find(connection, schedule_id)
            merged = {"cron": old.cron, "timezone": old.timezone, "enabled": old.enabled, **fields}
            due = next_run(merged["cron"], merged["timezone"], now)
            if "job" in fields:
                hold_inputs(connection, self._project_id, JobSpec.model_validate(fields["job"]))
            values = {**fields, "next_run_at": due if merged["enabled"] else None}
            connection.execute(update(schedules).where(schedules.c.id == schedule_id).values(**values))
            return self._find(connection, schedule_id)

    def delete(self, schedule_id: str) -> None:
        """Its jobs stay. Raises Unknown."""
        is_it = schedules.c.id == schedule_id, schedules.c.project_id == self._project_id
        with self._database.write() as connection:
            if connection.execute(delete(schedules).where(*is_it)).rowcount == 0:
                raise Unknown("schedule", schedule_id)

    def run_now(self, schedule_id: str, *, once: Once | None = None) -> str:
        """Submits its job at once, beside the timetable; the job's id. Raises Unknown, LimitReached, KeyReused."""
        job_id = new_job_id()
        with self._database.write() as connection:
            found = self._find(connection, schedule_id)
            done = done_before(connection, once, job_id)
            if done is None:
                _submit(connection, self._project_id, found, self._limits, job_id)
            return done or job_id

    def _find(self, connection: Connection, schedule_id: str) -> Schedule:
        query = select(schedules).where(schedules.c.id == schedule_id, schedules.c.project_id == self._project_id)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise Unknown("schedule", schedule_id)
        return _schedule(connection, row)


def fire_due(database: Database, limits: Limits, now: float) -> list[str]:
    """Submits one job for each schedule that is due, in all projects; their ids.

    A schedule fires once however many schedulers run and however long none ran: whoever moves `next_run_at` on from
    the value that was seen submits the job in the same transaction; missed moments are not made up for.
    """
    due = select(schedules.c.id).where(schedules.c.enabled.is_(True), schedules.c.next_run_at <= now)
    with database.read() as connection:
        waiting = list(connection.scalars(due.order_by(schedules.c.next_run_at)))
    return [job_id for schedule_id in waiting if (job_id := _fire(database, limits, schedule_id, now)) is not None]


def _fire(database: Database, limits: Limits, schedule_id: str, now: float) -> str | None:
    job_id = new_job_id()
    with database.write() as connection:
        row = connection.execute(select(schedules).where(schedules.c.id == schedule_id)).one_or_none()
        if row is None or not row.enabled or row.next_run_at is None or row.next_run_at > now:
            return None
        moved = connection.execute(
            update(schedules)
            .where(schedules.c.id == schedule_id, schedules.c.next_run_at == row.next_run_at)
            .values(next_run_at=next_run(row.cron, row.timezone, now))
        )
        if moved.rowcount != 1:
            return None
        try:
            _submit(connection, row.project_id, _schedule(connection, row), limits, job_id)
        except Refusal as refusal:  # nothing is written yet; the next moment tries again
            logger.warning("schedule %s: its job was not submitted: %s", schedule_id, refusal)
            return None
    return job_id


def _submit(connection: Connection, project_id: str, schedule: Schedule, limits: Limits, job_id: str) -> None:
    spec = JobSpec.model_validate(schedule.job)
    insert_job(connection, project_id, spec, limits, job_id=job_id, schedule_id=schedule.id)


def _schedule(connection: Connection, row: Row[Any]) -> Schedule:
    newest = select(jobs.c.id).where(jobs.c.schedule_id == row.id).order_by(jobs.c.created_at.desc()).limit(1)
    return Schedule(
        id=row.id,
        name=row.name,
        cron=row.cron,
        timezone=row.timezone,
        job=row.job,
        enabled=row.enabled,
        next_run_at=row.next_run_at,
        last_job=connection.execute(newest).scalar_one_or_none(),
        created_at=row.created_at,
    )

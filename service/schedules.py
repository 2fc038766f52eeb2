"""Rows of schedules: a job specification and the times at which it is submitted. Time is an argument."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from sqlalchemy import Connection, Row, delete, insert, select, update

from search.spec import JobSpec
from service.database import Database, db_now
from service.jobs import insert_job
from service.tables import jobs, schedules


class UnknownSchedule(LookupError):
    """No schedule has this id."""


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
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, *, name: str, cron: str, timezone: str, job: JobSpec, enabled: bool, now: float) -> Schedule:
        """Raises BadCron."""
        due = next_run(cron, timezone, now)
        schedule_id = f"s{secrets.token_hex(8)}"
        with self._database.write() as connection:
            connection.execute(
                insert(schedules).values(
                    id=schedule_id,
                    name=name,
                    cron=cron,
                    timezone=timezone,
                    job=job.model_dump(mode="json"),
                    enabled=enabled,
                    next_run_at=due if enabled else None,
                    created_at=db_now(),
                )
            )
            return _find(connection, schedule_id)

    def get(self, schedule_id: str) -> Schedule:
        """Raises UnknownSchedule."""
        with self._database.read() as connection:
            return _find(connection, schedule_id)

    def all(self) -> list[Schedule]:
        with self._database.read() as connection:
            rows = connection.execute(select(schedules).order_by(schedules.c.created_at, schedules.c.id)).all()
            return [_schedule(connection, row) for row in rows]

    def change(self, schedule_id: str, fields: Mapping[str, Any], now: float) -> Schedule:
        """Sets columns and works out the next run anew. Raises UnknownSchedule, BadCron."""
        with self._database.write() as connection:
            old = _find(connection, schedule_id)
            merged = {"cron": old.cron, "timezone": old.timezone, "enabled": old.enabled, **fields}
            due = next_run(merged["cron"], merged["timezone"], now)
            values = {**fields, "next_run_at": due if merged["enabled"] else None}
            connection.execute(update(schedules).where(schedules.c.id == schedule_id).values(**values))
            return _find(connection, schedule_id)

    def delete(self, schedule_id: str) -> None:
        """Its jobs stay. Raises UnknownSchedule."""
        with self._database.write() as connection:
            if connection.execute(delete(schedules).where(schedules.c.id == schedule_id)).rowcount == 0:
                raise UnknownSchedule(schedule_id)

    def run_now(self, schedule_id: str) -> str:
        """Submits its job at once, beside the timetable; the job's id. Raises UnknownSchedule."""
        with self._database.write() as connection:
            return _submit(connection, _find(connection, schedule_id))

    def fire_due(self, now: float) -> list[str]:
        """Submits one job for each schedule that is due; their ids.

        A schedule fires once however many schedulers run and however long none ran: whoever moves `next_run_at` on
        from the value that was seen submits the job in the same transaction; missed moments are not made up for.
        """
        due = select(schedules.c.id).where(schedules.c.enabled.is_(True), schedules.c.next_run_at <= now)
        with self._database.read() as connection:
            waiting = list(connection.scalars(due.order_by(schedules.c.next_run_at)))
        return [job_id for schedule_id in waiting if (job_id := self._fire(schedule_id, now)) is not None]

    def _fire(self, schedule_id: str, now: float) -> str | None:
        with self._database.write() as connection:
            try:
                seen = _find(connection, schedule_id)
            except UnknownSchedule:
                return None
            if not seen.enabled or seen.next_run_at is None or seen.next_run_at > now:
                return None
            moved = connection.execute(
                update(schedules)
                .where(schedules.c.id == schedule_id, schedules.c.next_run_at == seen.next_run_at)
                .values(next_run_at=next_run(seen.cron, seen.timezone, now))
            )
            return _submit(connection, seen) if moved.rowcount == 1 else None


def _submit(connection: Connection, schedule: Schedule) -> str:
    spec = JobSpec.model_validate(schedule.job)
    return insert_job(connection, spec, schedule_id=schedule.id)


def _find(connection: Connection, schedule_id: str) -> Schedule:
    row = connection.execute(select(schedules).where(schedules.c.id == schedule_id)).one_or_none()
    if row is None:
        raise UnknownSchedule(schedule_id)
    return _schedule(connection, row)


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

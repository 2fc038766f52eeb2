"""Rows of schedules: a job specification and the times at which it is submitted. Time is an argument."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from search.spec import JobSpec
from service.catalogue import hold_inputs
from service.cron import next_run
from service.database import Database, db_now
from service.firing import give_up_waiting, note_manual, submit_scheduled
from service.idempotency import Once, done_before, repeated
from service.jobs import new_job_id
from service.limits import Limits
from service.pages import Page, by_number, newest_first
from service.projects import lock_project
from service.refusals import Gone, Unknown
from service.schedule_policy import Missed, Overlap
from service.tables import jobs, schedule_runs, schedules
from service.versions import Resolved, resolve


@dataclass(frozen=True)
class Schedule:
    """job: a JobSpec as JSON, names as they were given. next_run_at: seconds since the epoch; None while disabled.

    last_job: its newest job.
    """

    id: str
    name: str
    cron: str
    timezone: str
    job: dict[str, Any]
    missed: Missed
    overlap: Overlap
    warm_start: bool
    enabled: bool
    next_run_at: float | None
    last_job: str | None
    created_at: float


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
        missed: Missed = "run_once",
        overlap: Overlap = "skip",
        warm_start: bool = True,
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
            _hold(connection, self._project_id, job)
            connection.execute(
                insert(schedules).values(
                    id=schedule_id,
                    project_id=self._project_id,
                    name=name,
                    cron=cron,
                    timezone=timezone,
                    job=job.model_dump(mode="json"),
                    missed=missed,
                    overlap=overlap,
                    warm_start=warm_start,
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
        """Sets columns. A new timetable begins now; without one, a tick that is due stays due.

        Raises Unknown, BadCron, Gone.
        """
        with self._database.write() as connection:
            old = self._find(connection, schedule_id, lock=True)
            merged = {"cron": old.cron, "timezone": old.timezone, "enabled": old.enabled, **fields}
            due = next_run(merged["cron"], merged["timezone"], now)
            if "job" in fields:
                _hold(connection, self._project_id, JobSpec.model_validate(fields["job"]))
            if not merged["enabled"]:
                give_up_waiting(connection, schedule_id, "the schedule was disabled")
            values = dict(fields)
            if (merged["cron"], merged["timezone"], merged["enabled"]) != (old.cron, old.timezone, old.enabled):
                values["next_run_at"] = due if merged["enabled"] else None
            if values:
                connection.execute(update(schedules).where(schedules.c.id == schedule_id).values(**values))
            return self._find(connection, schedule_id)

    def delete(self, schedule_id: str) -> None:
        """Its jobs stay. Raises Unknown."""
        is_it = schedules.c.id == schedule_id, schedules.c.project_id == self._project_id
        with self._database.write() as connection:
            if connection.execute(delete(schedules).where(*is_it)).rowcount == 0:
                raise Unknown("schedule", schedule_id)

    def run_now(self, schedule_id: str, *, once: Once | None = None) -> str:
        """Submits its job at once, beside the timetable and whatever else runs; the job's id.

        Raises Unknown, LimitReached, KeyReused, Gone, Unfit.
        """
        job_id = new_job_id()
        with self._database.write() as connection:
            row = self._row(connection, schedule_id)
            done = done_before(connection, once, job_id)
            if done is None:
                submit_scheduled(connection, row, self._limits, job_id)
                note_manual(connection, schedule_id, job_id)
            return done or job_id

    def runs(self, schedule_id: str, *, limit: int, cursor: str | None) -> Page:
        """What became of its ticks, newest first, with what became of their jobs. Raises Unknown, BadCursor."""
        what = (
            *(jobs.c[name] for name in ("state", "outcome", "best", "previous")),
            jobs.c.reason.label("job_reason"),
        )
        query = select(schedule_runs, *what).select_from(schedule_runs.outerjoin(jobs))
        query = query.where(schedule_runs.c.schedule_id == schedule_id)
        with self._database.read() as connection:
            self._row(connection, schedule_id)
            return by_number(connection, query, schedule_runs.c.id, limit=limit, cursor=cursor)

    def _find(self, connection: Connection, schedule_id: str, *, lock: bool = False) -> Schedule:
        return _schedule(connection, self._row(connection, schedule_id, lock=lock))

    def _row(self, connection: Connection, schedule_id: str, *, lock: bool = False) -> Row[Any]:
        query = select(schedules).where(schedules.c.id == schedule_id, schedules.c.project_id == self._project_id)
        row = connection.execute(query.with_for_update() if lock else query).one_or_none()
        if row is None:
            raise Unknown("schedule", schedule_id)
        return row


def _hold(connection: Connection, project_id: str, spec: JobSpec) -> None:
    """Like hold_inputs; for a name, what it stands for now. Raises Gone."""
    found = resolve(connection, project_id, spec)
    if not isinstance(found, Resolved):
        raise Gone("; ".join(f"{missing.field}: {missing}" for missing in found))
    hold_inputs(connection, project_id, found.spec)


def _schedule(connection: Connection, row: Row[Any]) -> Schedule:
    newest = select(jobs.c.id).where(jobs.c.schedule_id == row.id).order_by(jobs.c.created_at.desc()).limit(1)
    return Schedule(
        id=row.id,
        name=row.name,
        cron=row.cron,
        timezone=row.timezone,
        job=row.job,
        missed=row.missed,
        overlap=row.overlap,
        warm_start=row.warm_start,
        enabled=row.enabled,
        next_run_at=row.next_run_at,
        last_job=connection.execute(newest).scalar_one_or_none(),
        created_at=row.created_at,
    )

"""Fires schedules: one row per tick says what became of it, and at most one job is submitted for it.

Any number of schedulers may do this at once. Whoever holds the schedule's row moves `next_run_at` on, writes the row of
the tick, of which there can be only one, and submits the job, all in one transaction.
"""

from __future__ import annotations

import logging
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

from pydantic import ValidationError
from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from search.fit import check_fit
from search.spec import JobSpec, SearchSpec
from service.catalogue import StoredDataset, StoredModel, find_input
from service.cron import BadCron, last_ticks, next_run
from service.database import Database, db_now, insert_if_new
from service.job_end import last_good
from service.jobs import find_job, insert_job, new_job_id, steer_job
from service.limits import Limits
from service.outbox import note_refused_tick
from service.refusals import Gone, Refusal, Unfit
from service.schedule_policy import MAX_LISTED, Decision, Turn, plan, turn
from service.tables import datasets, jobs, models, schedule_runs, schedules
from service.versions import Resolved, references, resolve

logger = logging.getLogger("bantam.scheduler")
_UNDER_WAY = ("queued", "running", "paused")


def fire_due(database: Database, limits: Limits, now: float) -> list[str]:
    """Submits the jobs of all schedules that are due, and of ticks whose turn has come; their ids. In all projects."""
    due = select(schedules.c.id).where(schedules.c.enabled.is_(True), schedules.c.next_run_at <= now)
    waiting = select(schedule_runs.c.schedule_id).where(schedule_runs.c.decision == "waiting").distinct()
    with database.read() as connection:
        ids = list(connection.scalars(due.order_by(schedules.c.next_run_at)))
        ids += [key for key in connection.scalars(waiting) if key not in ids]
    submitted: list[str] = []
    for schedule_id in ids:
        try:
            with database.write() as connection:
                submitted += _fire(connection, limits, schedule_id, now)
        except (BadCron, ZoneInfoNotFoundError) as error:
            _stop(database, schedule_id, f"{error}; change it and enable the schedule again")
        except SQLAlchemyError:
            raise
        except Exception:  # one broken schedule must not keep the others from firing
            logger.exception("schedule %s: could not be fired", schedule_id)
    return submitted


def _fire(connection: Connection, limits: Limits, schedule_id: str, now: float) -> list[str]:
    row = connection.execute(select(schedules).where(schedules.c.id == schedule_id).with_for_update()).one_or_none()
    if row is None or not row.enabled:
        return []
    submitted = _next_in_line(connection, limits, row)
    if row.next_run_at is None or row.next_run_at > now:
        return submitted
    due = last_ticks(row.cron, row.timezone, first=row.next_run_at, until=now, most=MAX_LISTED) or [row.next_run_at]
    upcoming = next_run(row.cron, row.timezone, now)
    connection.execute(update(schedules).where(schedules.c.id == row.id).values(next_run_at=upcoming))
    catching_up = False
    for tick in plan(due, row.next_run_at, row.missed, now):
        if tick.missed is not None:
            _note(connection, row, tick.tick, "missed", tick.missed)
            continue
        active, waiting = _active(connection, row.id), _waiting(connection, row.id)
        what = turn(row.overlap, active, len(waiting), catching_up=catching_up)
        run_id = _note(connection, row, tick.tick, what.decision, what.reason)
        if run_id is not None and what.decision == "submitted":
            submitted += _take_turn(connection, limits, row, run_id, what)
            catching_up = True
    return submitted


def _stop(database: Database, schedule_id: str, reason: str) -> None:
    """Disables a schedule that has no next tick: its zone has left the time zone database, or its cron no more comes
    true. Says so in its history, and to webhooks.
    """
    logger.error("schedule %s: disabled: %s", schedule_id, reason)
    with database.write() as connection:
        row = connection.execute(select(schedules).where(schedules.c.id == schedule_id).with_for_update()).one_or_none()
        if row is None or not row.enabled:
            return
        change = {"enabled": False, "next_run_at": None}
        connection.execute(update(schedules).where(schedules.c.id == schedule_id).values(**change))
        give_up_waiting(connection, schedule_id, "the schedule was disabled")
        run_id = None if row.next_run_at is None else _note(connection, row, row.next_run_at, "refused", reason)
        if run_id is not None:
            note_refused_tick(connection, row, run_id, reason)


def _next_in_line(connection: Connection, limits: Limits, row: Row[Any]) -> list[str]:
    """Submits the oldest tick that waits, once no job of the schedule is under way."""
    waiting = _waiting(connection, row.id)
    if not waiting or _active(connection, row.id):
        return []
    return _take_turn(connection, limits, row, waiting[0], Turn("submitted"))


def _take_turn(connection: Connection, limits: Limits, row: Row[Any], run_id: int, what: Turn) -> list[str]:
    for job_id in what.cancel:
        steer_job(connection, find_job(connection, row.project_id, job_id, lock=True), "cancel")
    if row.overlap == "cancel_previous":
        for waiting in _waiting(connection, row.id):
            if waiting != run_id:
                _decide(connection, waiting, "skipped", "a later tick took its place")
    job_id = new_job_id()
    try:
        submit_scheduled(connection, row, limits, job_id)
    except Refusal as refusal:  # nothing of the job is written yet
        logger.warning("schedule %s: its job was not submitted: %s", row.id, refusal)
        _decide(connection, run_id, "refused", str(refusal))
        note_refused_tick(connection, row, run_id, str(refusal))
        return []
    _decide(connection, run_id, "submitted", what.reason, job_id)
    return [job_id]


def submit_scheduled(connection: Connection, row: Row[Any], limits: Limits, job_id: str) -> None:
    """row: of the schedule. Raises LimitReached, Gone, Unfit."""
    try:
        spec = JobSpec.model_validate(row.job)
    except ValidationError as error:
        raise Unfit(f"this release takes no such job any more: {error}; change the schedule's job") from error
    found = resolve(connection, row.project_id, spec)
    if not isinstance(found, Resolved):
        raise Gone("; ".join(f"{missing.field}: {missing}" for missing in found))
    if found.names:
        _check_fit(connection, row.project_id, found.spec)
    spec = _warm(connection, row, found.spec) if row.warm_start else found.spec
    insert_job(connection, row.project_id, spec, limits, job_id=job_id, schedule_id=row.id, names=found.names)


def _warm(connection: Connection, row: Row[Any], spec: JobSpec) -> JobSpec:
    """Lets the search start from the schedule's last good job, unless the schedule's job names one itself."""
    good = last_good(connection, row.id)
    document = spec.model_dump(mode="json")
    given = document["search"].get("start_from") or {}
    if good is None or given.get("job") is not None or "start_from" not in SearchSpec.model_fields:
        return spec
    search = {**document["search"], "start_from": {**given, "job": good.id}}
    return JobSpec.model_validate({**document, "search": search})


def _check_fit(connection: Connection, project_id: str, spec: JobSpec) -> None:
    """Names may stand for something else than when the schedule was made. Raises Unfit."""
    model = StoredModel.of(find_input(connection, models, project_id, spec.model)).description
    data = {
        key: StoredDataset.of(find_input(connection, datasets, project_id, key)).description
        for _, table, key in references(spec)
        if table is datasets
    }
    problems = check_fit(spec, model, data)
    if problems:
        raise Unfit("; ".join(f"{p.field}: {p.message}" for p in problems))


def note_manual(connection: Connection, schedule_id: str, job_id: str) -> None:
    values = {"schedule_id": schedule_id, "decision": "submitted", "reason": "run by hand", "job_id": job_id}
    connection.execute(insert(schedule_runs).values(**values, decided_at=db_now()))


def give_up_waiting(connection: Connection, schedule_id: str, reason: str) -> None:
    for run_id in _waiting(connection, schedule_id):
        _decide(connection, run_id, "skipped", reason)


def forget_runs(database: Database, older_than_s: float) -> int:
    """How many rows were removed."""
    old = schedule_runs.c.decided_at < db_now() - older_than_s
    with database.write() as connection:
        return connection.execute(delete(schedule_runs).where(old, schedule_runs.c.decision != "waiting")).rowcount


def _note(connection: Connection, row: Row[Any], tick: float, decision: Decision, reason: str | None) -> int | None:
    """The id of the tick's row; None if it has one already."""
    values = {"schedule_id": row.id, "tick": tick, "decision": decision, "reason": reason, "decided_at": db_now()}
    if not insert_if_new(connection, schedule_runs, values):
        return None
    is_it = schedule_runs.c.schedule_id == row.id, schedule_runs.c.tick == tick
    return int(connection.execute(select(schedule_runs.c.id).where(*is_it)).scalar_one())


def _decide(
    connection: Connection, run_id: int, decision: Decision, reason: str | None, job_id: str | None = None
) -> None:
    values = {"decision": decision, "reason": reason, "job_id": job_id, "decided_at": db_now()}
    connection.execute(update(schedule_runs).where(schedule_runs.c.id == run_id).values(**values))


def _active(connection: Connection, schedule_id: str) -> list[tuple[str, str]]:
    query = select(jobs.c.id, jobs.c.state, jobs.c.created_at)
    found = connection.execute(query.where(jobs.c.schedule_id == schedule_id, jobs.c.state.in_(_UNDER_WAY)))
    # Sorted here: asked for in order, SQLite reads all jobs that the schedule ever had.
    return [(row.id, row.state) for row in sorted(found, key=lambda row: row.created_at)]


def _waiting(connection: Connection, schedule_id: str) -> list[int]:
    query = select(schedule_runs.c.id).where(
        schedule_runs.c.schedule_id == schedule_id, schedule_runs.c.decision == "waiting"
    )
    return list(connection.scalars(query.order_by(schedule_runs.c.tick)))

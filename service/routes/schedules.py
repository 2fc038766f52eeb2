"""Schedules: jobs that submit themselves by a cron expression in a time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from sqlalchemy import Row

from search.records import Best, JobState, Outcome
from search.spec import JobSpec
from service.cron import BadCron
from service.deps import CatalogueDep, CursorDep, JobsDep, KeyDep, SchedulesDep, StateDep
from service.openapi import LOCATION, refusals
from service.problems import FieldError, invalid
from service.schedule_policy import Decision, Missed, Overlap
from service.schedules import Schedule
from service.submission import check_submission
from service.views import JobView, PageView, moment

router = APIRouter(prefix="/schedules", tags=["schedules"])


def _known_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (LookupError, ValueError, OSError) as error:
        raise ValueError(f"{value!r}: no such time zone; use an IANA name like Europe/Berlin") from error
    return value


Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Cron = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Zone = Annotated[str, StringConstraints(max_length=100), AfterValidator(_known_zone)]


class NewSchedule(BaseModel):
    """missed: about ticks at which no scheduler ran. overlap: about a tick that finds a job of the schedule under way.

    warm_start: each search starts from what the schedule's last good job has found.
    """

    model_config = ConfigDict(extra="forbid")

    name: Name
    cron: Cron
    timezone: Zone = "UTC"
    job: JobSpec
    missed: Missed = "run_once"
    overlap: Overlap = "skip"
    warm_start: bool = True
    enabled: bool = True


class ScheduleChange(BaseModel):
    """Fields left out keep their value."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    cron: Cron | None = None
    timezone: Zone | None = None
    job: JobSpec | None = None
    missed: Missed | None = None
    overlap: Overlap | None = None
    warm_start: bool | None = None
    enabled: bool | None = None


class ScheduleView(BaseModel):
    id: str
    name: str
    cron: str
    timezone: str
    job: dict[str, Any]
    missed: Missed
    overlap: Overlap
    warm_start: bool
    enabled: bool
    next_run_at: datetime | None
    last_job: str | None
    created_at: datetime

    @classmethod
    def of(cls, s: Schedule) -> ScheduleView:
        return cls(
            id=s.id,
            name=s.name,
            cron=s.cron,
            timezone=s.timezone,
            job=s.job,
            missed=s.missed,
            overlap=s.overlap,
            warm_start=s.warm_start,
            enabled=s.enabled,
            next_run_at=moment(s.next_run_at),
            last_job=s.last_job,
            created_at=datetime.fromtimestamp(s.created_at, UTC),
        )


class ScheduleList(PageView):
    items: list[ScheduleView]


class RunView(BaseModel):
    """What became of one tick.

    tick: the moment that the timetable names; null for a run by hand. decision: submitted; waiting (for a job that is
    under way); skipped (overlap); missed (no scheduler ran then); refused (the job could not be submitted). reason: why
    there is no job, or what was done beside. fired_at: when this was decided. The rest is of the job, null without one.
    """

    id: int
    tick: datetime | None
    decision: Decision
    reason: str | None
    fired_at: datetime
    job: str | None
    state: JobState | None
    job_reason: str | None
    outcome: Outcome | None
    best: Best | None
    previous: dict[str, Any] | None

    @classmethod
    def of(cls, row: Row[Any]) -> RunView:
        return cls(
            id=row.id,
            tick=moment(row.tick),
            decision=row.decision,
            reason=row.reason,
            fired_at=datetime.fromtimestamp(row.decided_at, UTC),
            job=row.job_id,
            state=row.state,
            job_reason=row.job_reason,
            outcome=row.outcome,
            best=row.best,
            previous=row.previous,
        )


class RunList(PageView):
    items: list[RunView]


@router.post("", status_code=201, responses={201: {"headers": LOCATION}})
def create(
    new: NewSchedule,
    response: Response,
    state: StateDep,
    catalogue: CatalogueDep,
    schedules: SchedulesDep,
    key: KeyDep,
) -> ScheduleView:
    check_submission(new.job, catalogue, state.intake, prefix="job.")
    try:
        made = schedules.create(
            name=new.name,
            cron=new.cron,
            timezone=new.timezone,
            job=new.job,
            missed=new.missed,
            overlap=new.overlap,
            warm_start=new.warm_start,
            enabled=new.enabled,
            now=state.database.clock(),
            once=key.with_body(new.model_dump_json()),
        )
    except BadCron as error:
        raise invalid([FieldError("cron", str(error))]) from error
    response.headers["Location"] = f"/v1/schedules/{made.id}"
    return ScheduleView.of(made)


@router.get("")
def list_schedules(
    schedules: SchedulesDep, limit: Annotated[int, Query(ge=1, le=500)] = 100, cursor: CursorDep = None
) -> ScheduleList:
    """Newest first."""
    found, next_cursor = schedules.page(limit=limit, cursor=cursor)
    return ScheduleList(items=[ScheduleView.of(s) for s in found], next_cursor=next_cursor)


@router.get("/{schedule_id}")
def get(schedule_id: str, schedules: SchedulesDep) -> ScheduleView:
    return ScheduleView.of(schedules.get(schedule_id))


@router.get("/{schedule_id}/runs")
def list_runs(
    schedule_id: str,
    schedules: SchedulesDep,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: CursorDep = None,
) -> RunList:
    """What became of its ticks, newest first."""
    page = schedules.runs(schedule_id, limit=limit, cursor=cursor)
    return RunList(items=[RunView.of(row) for row in page.rows], next_cursor=page.next_cursor)


@router.patch("/{schedule_id}")
def change(
    schedule_id: str, wanted: ScheduleChange, state: StateDep, catalogue: CatalogueDep, schedules: SchedulesDep
) -> ScheduleView:
    if wanted.job is not None:
        check_submission(wanted.job, catalogue, state.intake, prefix="job.")
    fields = wanted.model_dump(mode="json", exclude_none=True, exclude={"job"})
    if wanted.job is not None:
        fields["job"] = wanted.job.model_dump(mode="json")
    try:
        return ScheduleView.of(schedules.change(schedule_id, fields, now=state.database.clock()))
    except BadCron as error:
        raise invalid([FieldError("cron", str(error))]) from error


@router.delete("/{schedule_id}", status_code=204)
def delete(schedule_id: str, schedules: SchedulesDep) -> Response:
    """Its jobs stay."""
    schedules.delete(schedule_id)
    return Response(status_code=204)


@router.post("/{schedule_id}/run", status_code=202, responses={202: {"headers": LOCATION}, **refusals(429)})
def run(schedule_id: str, response: Response, schedules: SchedulesDep, jobs: JobsDep, key: KeyDep) -> JobView:
    """Submits its job now, beside the timetable."""
    job_id = schedules.run_now(schedule_id, once=key.with_body())
    response.headers["Location"] = f"/v1/jobs/{job_id}"
    return JobView.of(jobs.get(job_id))

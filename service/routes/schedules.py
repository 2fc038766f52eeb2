"""Schedules: jobs that submit themselves by a cron expression in a time zone."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from search.spec import JobSpec
from service.deps import CatalogueDep, CursorDep, JobsDep, KeyDep, SchedulesDep, StateDep
from service.openapi import LOCATION, refusals
from service.problems import FieldError, invalid
from service.schedules import BadCron, Schedule
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
# Every run finds the stages that earlier ones have cached. Starting from an earlier run's trials is not on offer.
WarmStart = Literal[False]


class NewSchedule(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name
    cron: Cron
    timezone: Zone = "UTC"
    job: JobSpec
    warm_start: WarmStart = False
    enabled: bool = True


class ScheduleChange(BaseModel):
    """Fields left out keep their value."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    cron: Cron | None = None
    timezone: Zone | None = None
    job: JobSpec | None = None
    warm_start: WarmStart | None = None
    enabled: bool | None = None


class ScheduleView(BaseModel):
    id: str
    name: str
    cron: str
    timezone: str
    job: dict[str, Any]
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
            warm_start=False,
            enabled=s.enabled,
            next_run_at=moment(s.next_run_at),
            last_job=s.last_job,
            created_at=datetime.fromtimestamp(s.created_at, UTC),
        )


class ScheduleList(PageView):
    items: list[ScheduleView]


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
            enabled=new.enabled,
            now=time.time(),
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


@router.patch("/{schedule_id}")
def change(
    schedule_id: str, wanted: ScheduleChange, state: StateDep, catalogue: CatalogueDep, schedules: SchedulesDep
) -> ScheduleView:
    if wanted.job is not None:
        check_submission(wanted.job, catalogue, state.intake, prefix="job.")
    fields = wanted.model_dump(mode="json", exclude_none=True, exclude={"warm_start", "job"})
    if wanted.job is not None:
        fields["job"] = wanted.job.model_dump(mode="json")
    try:
        return ScheduleView.of(schedules.change(schedule_id, fields, now=time.time()))
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

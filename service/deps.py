"""What a route needs, named once."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import Annotated, Any

from anyio import CapacityLimiter
from fastapi import Depends, Path, Request
from sqlalchemy import Row

from service.blobs import BlobStore
from service.catalogue import Catalogue
from service.database import Database
from service.intake import Intake
from service.jobs import Jobs, UnknownJob
from service.metrics import Metrics
from service.problems import Problem, not_found
from service.schedules import Schedules
from service.settings import Settings
from service.trials import Trials


@dataclass(frozen=True)
class State:
    """All that one app holds.

    stopping: set when the server shuts down, so that open streams end. readers: how many uploads are read at once,
    each by a child process; further ones wait without holding one of the threads that answer requests.
    """

    settings: Settings
    database: Database
    intake: Intake
    metrics: Metrics
    token: str
    readers: CapacityLimiter
    stopping: Event = field(default_factory=Event)

    @property
    def blobs(self) -> BlobStore:
        return BlobStore(self.settings.blobs_dir)


def _state(request: Request) -> State:
    state: State = request.app.state.bantam
    return state


StateDep = Annotated[State, Depends(_state)]


def _catalogue(state: StateDep) -> Catalogue:
    return Catalogue(state.database)


def _jobs(state: StateDep) -> Jobs:
    return Jobs(state.database)


def _trials(state: StateDep) -> Trials:
    return Trials(state.database)


def _schedules(state: StateDep) -> Schedules:
    return Schedules(state.database)


CatalogueDep = Annotated[Catalogue, Depends(_catalogue)]
JobsDep = Annotated[Jobs, Depends(_jobs)]
TrialsDep = Annotated[Trials, Depends(_trials)]
SchedulesDep = Annotated[Schedules, Depends(_schedules)]


def unknown_job(job_id: str) -> Problem:
    return not_found("job", job_id, "GET /v1/jobs lists all")


def _job(job_id: Annotated[str, Path(description="the job's id")], jobs: JobsDep) -> Row[Any]:
    try:
        return jobs.get(job_id)
    except UnknownJob as error:
        raise unknown_job(job_id) from error


def _job_id(job_id: Annotated[str, Path(description="the job's id")], jobs: JobsDep) -> str:
    """Costs one indexed read; for routes that need only to know that the job exists."""
    try:
        jobs.revision(job_id)
    except UnknownJob as error:
        raise unknown_job(job_id) from error
    return job_id


JobDep = Annotated[Row[Any], Depends(_job)]
JobIdDep = Annotated[str, Depends(_job_id)]

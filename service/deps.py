"""What a route needs, named once.

What only puts objects together is `async`, though it waits for nothing: FastAPI runs every other dependency in a thread
of its own, and the ways there and back cost more than a poll's query. What reads the database is not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import Annotated, Any

from anyio import CapacityLimiter
from fastapi import Depends, Header, Path, Query, Request
from sqlalchemy import Row

from service.audit import Audit
from service.auth import Authenticator
from service.blobs import Blobs
from service.catalogue import Catalogue
from service.database import Database
from service.idempotency import IdempotencyKey
from service.intake import Intake
from service.jobs import Jobs
from service.limits import Limits, UploadSlots
from service.metrics import Metrics
from service.projects import Projects
from service.removal import Removal
from service.schedules import Schedules
from service.settings import Settings
from service.tokens import Principal, Tokens
from service.trials import Trials
from service.webhooks import Webhooks


@dataclass(frozen=True)
class State:
    """All that one app holds.

    stopping: set when the server shuts down, so that open streams end. readers: how many uploads are read at once,
    each by a child process; further ones wait without holding one of the threads that answer requests.
    """

    settings: Settings
    database: Database
    blobs: Blobs
    intake: Intake
    metrics: Metrics
    authenticate: Authenticator
    limits: Limits
    uploads: UploadSlots
    readers: CapacityLimiter
    stopping: Event = field(default_factory=Event)


async def _state(request: Request) -> State:
    state: State = request.app.state.bantam
    return state


async def _principal(request: Request) -> Principal:
    """TokenGuard has left it here."""
    principal: Principal = request.state.principal
    return principal


StateDep = Annotated[State, Depends(_state)]
PrincipalDep = Annotated[Principal, Depends(_principal)]


async def _catalogue(state: StateDep, principal: PrincipalDep) -> Catalogue:
    return Catalogue(state.database, principal.project_id, state.limits)


async def _jobs(state: StateDep, principal: PrincipalDep) -> Jobs:
    return Jobs(state.database, principal.project_id)


async def _trials(state: StateDep) -> Trials:
    """Knows no projects: whoever asks it for a job's trials has asked Jobs for the job first."""
    return Trials(state.database)


async def _schedules(state: StateDep, principal: PrincipalDep) -> Schedules:
    return Schedules(state.database, principal.project_id, state.limits)


async def _webhooks(state: StateDep, principal: PrincipalDep) -> Webhooks:
    return Webhooks(state.database, principal.project_id, state.limits)


async def _removal(state: StateDep, principal: PrincipalDep) -> Removal:
    return Removal(state.database, principal.project_id)


async def _tokens(state: StateDep, principal: PrincipalDep) -> Tokens:
    return Tokens(state.database, None if principal.runs_installation else principal.project_id)


async def _projects(state: StateDep) -> Projects:
    return Projects(state.database)


async def _audit(state: StateDep) -> Audit:
    return Audit(state.database)


CatalogueDep = Annotated[Catalogue, Depends(_catalogue)]
JobsDep = Annotated[Jobs, Depends(_jobs)]
TrialsDep = Annotated[Trials, Depends(_trials)]
SchedulesDep = Annotated[Schedules, Depends(_schedules)]
WebhooksDep = Annotated[Webhooks, Depends(_webhooks)]
RemovalDep = Annotated[Removal, Depends(_removal)]
TokensDep = Annotated[Tokens, Depends(_tokens)]
ProjectsDep = Annotated[Projects, Depends(_projects)]
AuditDep = Annotated[Audit, Depends(_audit)]


async def _key(
    request: Request,
    principal: PrincipalDep,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=255, description="a request repeated with its key changes nothing again"),
    ] = None,
) -> IdempotencyKey:
    return IdempotencyKey(principal.project_id, idempotency_key, f"{request.method} {request.url.path}")


KeyDep = Annotated[IdempotencyKey, Depends(_key)]
CursorDep = Annotated[str | None, Query(max_length=500, description="next_cursor of the page before")]
NameQuery = Annotated[str | None, Query(min_length=1, max_length=200, description="only versions of this name")]
JobPath = Annotated[str, Path(description="the job's id")]


def _job(job_id: JobPath, jobs: JobsDep) -> Row[Any]:
    return jobs.get(job_id)


def _job_id(job_id: JobPath, jobs: JobsDep) -> str:
    """Costs one indexed read; for routes that need only to know that the job exists."""
    jobs.revision(job_id)
    return job_id


JobDep = Annotated[Row[Any], Depends(_job)]
JobIdDep = Annotated[str, Depends(_job_id)]

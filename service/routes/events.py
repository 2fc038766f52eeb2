"""Server-sent events of one job: `job`, `trial`, `log`, each with the revision it belongs to as its id.

A client that comes back with `Last-Event-ID` gets exactly what changed since. An idle stream costs one indexed read per
poll. Once the job has ended and everything is sent, the stream closes; coming back then is answered with 204, which
tells an EventSource to stop.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from sqlalchemy import Row

from service.auth import given_token
from service.deps import JobDep, State, StateDep
from service.jobs import TERMINAL, Jobs
from service.problems import FieldError, invalid
from service.refusals import Unknown
from service.trials import Trials
from service.views import MAX_REV, JobView, LogLine

BATCH = 500
_EVENT = {
    "type": "object",
    "description": "one event of the stream",
    "required": ["event", "id", "data"],
    "properties": {
        "event": {"enum": ["job", "trial", "log"]},
        "id": {"type": "string", "pattern": "^[0-9]+$", "description": "the job's revision"},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer", "description": "milliseconds"},
    },
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": _EVENT}}},
    204: {"description": "ended, nothing new"},
}
router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])


@router.get("/events", response_class=StreamingResponse, responses=_STREAM)
async def events(
    job: JobDep,
    request: Request,
    state: StateDep,
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[int, Query(ge=0, le=MAX_REV, description="like Last-Event-ID, for a first connection")] = 0,
) -> Response:
    """Everything since the revision given, then live."""
    if last_event_id:
        if not last_event_id.isdecimal() or int(last_event_id) > MAX_REV:
            message = f"{last_event_id!r}: not a revision; send the id of the last event received"
            raise invalid([FieldError("Last-Event-ID", message)])
        after = int(last_event_id)
    if job.state in TERMINAL and after >= job.rev:
        return Response(status_code=204)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    stream = _stream(job, request, state, after)
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(job: Row[Any], request: Request, state: State, after: int) -> AsyncIterator[bytes]:
    """Ends when everything is sent, the token has been revoked, the job deleted, or the stream is old."""
    settings = state.settings
    opened = sent = checked = time.monotonic()
    yield format_sse_event(comment="bantam", retry=2000)
    while not state.stopping.is_set():
        try:
            changes, after, ended = await run_in_threadpool(_changes, job.project_id, job.id, state, after)
        except Unknown:
            return
        for change in changes:
            yield change
        now = time.monotonic()
        if ended or now - opened > settings.events_max_s:
            return
        if now - checked > settings.events_ping_s:
            if await run_in_threadpool(state.authenticate, given_token(request)) is None:
                return
            checked = now
        if changes:
            sent = now
            if len(changes) >= BATCH:
                continue
        elif now - sent > settings.events_ping_s:
            yield format_sse_event(comment="ping")
            sent = now
        await asyncio.sleep(settings.events_poll_s)


def _changes(project_id: str, job_id: str, state: State, after: int) -> tuple[list[bytes], int, bool]:
    """Events after a revision in order of their revision, the new position, and whether that was all there will be."""
    jobs, trials = Jobs(state.database, project_id), Trials(state.database)
    if jobs.revision(job_id) <= after:
        return [], after, False
    job = jobs.get(job_id)
    found: list[tuple[int, str, Any]] = []
    limit = job.rev
    # What is read after the job may be newer than it; that waits for the next round, so that ids never go back.
    changed = trials.changed(job_id, after_rev=after, limit=BATCH)
    lines = [LogLine.of(row) for row in trials.logs(job_id, after=after, limit=BATCH)]
    if len(changed) == BATCH:
        limit = min(limit, changed[-1]["rev"])
    if len(lines) == BATCH:
        limit = min(limit, lines[-1].id)
    found += [(t["rev"], "trial", t) for t in changed if t["rev"] <= limit]
    found += [(line.id, "log", line.model_dump(mode="json")) for line in lines if line.id <= limit]
    found.sort(key=lambda change: change[0])
    if limit == job.rev:
        found.append((job.rev, "job", JobView.of(job).model_dump(mode="json")))
    return [_event(*change) for change in found], limit, limit == job.rev and job.state in TERMINAL


def _event(rev: int, kind: str, document: Any) -> bytes:
    return format_sse_event(event=kind, id=str(rev), data_str=json.dumps(document))

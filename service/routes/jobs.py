"""Jobs: submit, read, list, cancel, pause, resume, log lines."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse

from search.records import JobState
from search.spec import JobSpec
from service.deps import CatalogueDep, JobIdDep, JobsDep, StateDep, TrialsDep, unknown_job
from service.jobs import BadCursor, KeyReused, UnknownJob, Wish, WrongState
from service.problems import FieldError, Problem, invalid
from service.submission import check_submission
from service.views import MAX_REV, JobList, JobView, LogLine, LogPage

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.post("", status_code=202)
def submit(
    spec: JobSpec,
    response: Response,
    state: StateDep,
    catalogue: CatalogueDep,
    jobs: JobsDep,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> JobView:
    """Queues a search. Everything that can be refused is refused here, before it starts."""
    check_submission(spec, catalogue, state.intake)
    request = hashlib.sha256(spec.model_dump_json().encode()).hexdigest()
    try:
        row, _ = jobs.create(spec, key=idempotency_key, request_sha256=request)
    except KeyReused as error:
        message = "was used for another request; take a new key, or send the same request"
        raise invalid([FieldError("Idempotency-Key", message)]) from error
    view = JobView.of(row)
    response.headers["Location"] = f"/v1/jobs/{view.id}"
    response.headers["ETag"] = view.etag()
    return view


@router.get("")
def list_jobs(
    jobs: JobsDep,
    state: JobState | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: str | None = None,
) -> JobList:
    """Newest first."""
    try:
        page = jobs.page(state=state, limit=limit, cursor=cursor)
    except BadCursor as error:
        message = f"{cursor!r}: not a cursor of this list; use next_cursor of the page before"
        raise invalid([FieldError("cursor", message)]) from error
    return JobList(items=[JobView.of(row) for row in page.jobs], next_cursor=page.next_cursor)


@router.get("/{job_id}", response_model=JobView, responses={304: {"description": "unchanged since the given ETag"}})
def get_job(job_id: str, jobs: JobsDep, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """The job; its ETag is its revision."""
    try:
        if if_none_match is not None and _matches(if_none_match, jobs.revision(job_id)):
            return Response(status_code=304, headers={"Cache-Control": "no-cache"})
        view = JobView.of(jobs.get(job_id))
    except UnknownJob as error:
        raise unknown_job(job_id) from error
    headers = {"ETag": view.etag(), "Cache-Control": "no-cache"}
    return JSONResponse(view.model_dump(mode="json"), headers=headers)


def _matches(if_none_match: str, rev: int) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return f'"{rev}"' in tags


def _steer(job_id: str, jobs: JobsDep, response: Response, wish: Wish) -> JobView:
    try:
        view = JobView.of(jobs.steer(job_id, wish))
    except UnknownJob as error:
        raise unknown_job(job_id) from error
    except WrongState as error:
        raise Problem(409, "wrong-state", str(error)) from error
    response.headers["ETag"] = view.etag()
    return view


@router.post("/{job_id}/cancel", status_code=202)
def cancel(job_id: str, jobs: JobsDep, response: Response) -> JobView:
    """Ends the job; what it has found so far stays."""
    return _steer(job_id, jobs, response, "cancel")


@router.post("/{job_id}/pause", status_code=202)
def pause(job_id: str, jobs: JobsDep, response: Response) -> JobView:
    return _steer(job_id, jobs, response, "pause")


@router.post("/{job_id}/resume", status_code=202)
def resume(job_id: str, jobs: JobsDep, response: Response) -> JobView:
    return _steer(job_id, jobs, response, "resume")


@router.get("/{job_id}/logs")
def list_logs(
    job_id: JobIdDep,
    trials: TrialsDep,
    after: Annotated[int, Query(ge=0, le=MAX_REV)] = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
) -> LogPage:
    lines = [LogLine.of(row) for row in trials.logs(job_id, after=after, limit=limit)]
    return LogPage(items=lines, next=lines[-1].id if lines else after)

"""Jobs: submit, read, list, cancel, pause, resume, retry, delete, log lines."""

from __future__ import annotations

import shutil
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse

from search.records import JobState
from search.spec import JobSpec
from service.deps import (
    CatalogueDep,
    CursorDep,
    JobIdDep,
    JobPath,
    JobsDep,
    KeyDep,
    RemovalDep,
    StateDep,
    TrialsDep,
)
from service.idempotency import IdempotencyKey
from service.jobs import Jobs, Wish
from service.openapi import ETAG, LOCATION, refusals
from service.submission import check_submission
from service.views import MAX_REV, JobList, JobView, LogLine, LogPage

router = APIRouter(prefix="/jobs", tags=["jobs"])
_POLLED: dict[int | str, dict[str, Any]] = {
    200: {"headers": ETAG},
    304: {"description": "unchanged since the given ETag"},
}
_STEERED: dict[int | str, dict[str, Any]] = {202: {"headers": ETAG}}


@router.post("", status_code=202, responses={202: {"headers": LOCATION | ETAG}, **refusals(429)})
def submit(
    spec: JobSpec, response: Response, state: StateDep, catalogue: CatalogueDep, jobs: JobsDep, key: KeyDep
) -> JobView:
    """Queues a search. Everything that can be refused is refused here, before it starts.

    A model or dataset is given by its id, or as `name@latest`: the newest upload of that name at this moment.
    """
    found = check_submission(spec, catalogue, state.intake)
    once = key.with_body(spec.model_dump_json())
    view = JobView.of(jobs.create(found.spec, state.limits, names=found.names, once=once))
    response.headers["Location"] = f"/v1/jobs/{view.id}"
    response.headers["ETag"] = view.etag()
    return view


@router.get("")
def list_jobs(
    jobs: JobsDep,
    state: JobState | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: CursorDep = None,
) -> JobList:
    """Newest first."""
    page = jobs.page(state=state, limit=limit, cursor=cursor)
    return JobList(items=[JobView.of(row) for row in page.rows], next_cursor=page.next_cursor)


@router.get(
    "/{job_id}",
    response_model=JobView,
    responses=_POLLED,
)
def get_job(job_id: JobPath, jobs: JobsDep, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """The job; its ETag is its revision."""
    if if_none_match is not None and _matches(if_none_match, jobs.revision(job_id)):
        return Response(status_code=304, headers={"Cache-Control": "no-cache"})
    view = JobView.of(jobs.get(job_id))
    headers = {"ETag": view.etag(), "Cache-Control": "no-cache"}
    return JSONResponse(view.model_dump(mode="json"), headers=headers)


def _matches(if_none_match: str, rev: int) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return f'"{rev}"' in tags


@router.delete("/{job_id}", status_code=204)
def delete_job(job_id: JobPath, removal: RemovalDep, state: StateDep) -> Response:
    """A job that has ended, with its trials, log and artifacts."""
    removal.job(job_id)
    shutil.rmtree(state.settings.workspace(job_id), ignore_errors=True)
    return Response(status_code=204)


def _steer(job_id: str, jobs: Jobs, key: IdempotencyKey, response: Response, wish: Wish) -> JobView:
    view = JobView.of(jobs.steer(job_id, wish, once=key.with_body()))
    response.headers["ETag"] = view.etag()
    return view


@router.post("/{job_id}/cancel", status_code=202, responses=_STEERED)
def cancel(job_id: JobPath, jobs: JobsDep, key: KeyDep, response: Response) -> JobView:
    """Ends the job; what it has found so far stays."""
    return _steer(job_id, jobs, key, response, "cancel")


@router.post("/{job_id}/pause", status_code=202, responses=_STEERED)
def pause(job_id: JobPath, jobs: JobsDep, key: KeyDep, response: Response) -> JobView:
    return _steer(job_id, jobs, key, response, "pause")


@router.post("/{job_id}/resume", status_code=202, responses=_STEERED)
def resume(job_id: JobPath, jobs: JobsDep, key: KeyDep, response: Response) -> JobView:
    return _steer(job_id, jobs, key, response, "resume")


@router.post("/{job_id}/retry", status_code=202, responses={**_STEERED, **refusals(429)})
def retry(job_id: JobPath, jobs: JobsDep, state: StateDep, key: KeyDep, response: Response) -> JobView:
    """Queues a job that has failed or was cancelled once more; it goes on from the trials that it has."""
    view = JobView.of(jobs.retry(job_id, state.limits, once=key.with_body()))
    response.headers["ETag"] = view.etag()
    return view


@router.get("/{job_id}/logs")
def list_logs(
    job_id: JobIdDep,
    trials: TrialsDep,
    after: Annotated[int, Query(ge=0, le=MAX_REV)] = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
) -> LogPage:
    lines = [LogLine.of(row) for row in trials.logs(job_id, after=after, limit=limit)]
    return LogPage(items=lines, next=lines[-1].id if lines else after)

"""Trials of a job: changes since a revision, one, the front; the winner's file and the report."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse

from search.ledger import trial_file
from service.blob_response import blob_response
from service.deps import JobDep, JobIdDep, State, StateDep, TrialsDep
from service.jobs import TERMINAL
from service.openapi import refusals
from service.problems import Problem
from service.refusals import Unknown
from service.report_html import render
from service.trials import Trials
from service.views import MAX_REV, Front, JobView, TrialPage, TrialView

router = APIRouter(prefix="/jobs/{job_id}", tags=["trials"])
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": _BYTES, "headers": {"Digest": {"schema": {"type": "string"}, "required": True}}},
    **refusals(409, 410),
}
_REPORT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {"schema": {"type": "string"}}}},
    **refusals(409),
}


# Documents go out as they were stored: building thousands of models to serialise them again would only cost time.
@router.get("/trials", response_model=TrialPage)
def list_trials(
    job_id: JobIdDep,
    trials: TrialsDep,
    after_rev: Annotated[int, Query(ge=0, le=MAX_REV)] = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 500,
) -> Response:
    """Trials changed after a revision, in order of their change."""
    items = trials.changed(job_id, after_rev=after_rev, limit=limit)
    return JSONResponse({"items": items, "next_rev": items[-1]["rev"] if items else after_rev})


@router.get("/trials/{number}", response_model=TrialView)
def get_trial(job_id: JobIdDep, trials: TrialsDep, number: Annotated[int, Path(ge=0, le=2**31 - 1)]) -> Response:
    found = trials.one(job_id, number)
    if found is None:
        raise Unknown("trial", number, f"GET /v1/jobs/{job_id}/trials lists all")
    return JSONResponse(found)


@router.get("/front", response_model=Front)
def get_front(job_id: JobIdDep, trials: TrialsDep) -> Response:
    """The feasible trials that no other one beats in metric, latency and size at once."""
    return JSONResponse({"items": trials.front(job_id)})


@router.get("/artifact", response_class=FileResponse, responses=_FILE)
def get_artifact(
    request: Request, job: JobDep, trials: TrialsDep, state: StateDep, which: Literal["winner", "baseline"] = "winner"
) -> Response:
    """The exported file; `Digest` holds its sha256 (RFC 3230)."""
    return _file(request, job, trials, state, which, f"the {which}'s file")


@router.get("/trials/{number}/artifact", response_class=FileResponse, responses=_FILE)
def get_trial_artifact(
    request: Request,
    job: JobDep,
    trials: TrialsDep,
    state: StateDep,
    number: Annotated[int, Path(ge=0, le=2**31 - 1)],
) -> Response:
    """The exported file of a trial on the front, which jobs with objective `pareto` keep, as far as they are among the
    fastest 32. The trial says how it was measured while the search ran; only the winner is measured longer."""
    return _file(request, job, trials, state, trial_file(number), f"the file of trial {number}")


def _file(request: Request, job: Any, trials: Trials, state: State, name: str, what: str) -> Response:
    artifact = trials.artifact(job.id, name)
    if artifact is None:
        keep_s = state.settings.artifacts_keep_s
        if job.outcome is not None and keep_s is not None:
            detail = f"{what} is not kept: ended jobs keep their files for BANTAM_ARTIFACTS_KEEP_S={keep_s:g} seconds"
            raise Problem(410, "gone", f"{detail}; submit the job again")
        raise _missing(job, what)
    try:
        return blob_response(request, state.blobs, artifact.sha256, artifact.filename)
    except FileNotFoundError as error:
        raise Problem(410, "gone", str(error)) from error


@router.get("/report", responses=_REPORT, response_model=dict[str, Any])
def get_report(job: JobDep, trials: TrialsDep, accept: Annotated[str, Header()] = "application/json") -> Response:
    """JSON, or a page for people when `Accept` prefers text/html."""
    if job.report is None:
        raise _missing(job, "the report")
    if prefers_html(accept):
        page = render(JobView.of(job).model_dump(mode="json"), trials.all(job.id), job.report)
        return HTMLResponse(page, headers={"Vary": "Accept"})
    return JSONResponse({**job.report, "previous": job.previous}, headers={"Vary": "Accept"})


def _missing(job: Any, what: str) -> Problem:
    if job.state in TERMINAL:
        reason = job.reason or "see its log"
        return Problem(404, "not-found", f"the job ended as {job.state} without {what}: {reason}")
    return Problem(409, "not-ready", f"the job is {job.state}; {what} is there once it has succeeded")


def prefers_html(accept: str) -> bool:
    """Whether text/html is given a higher weight than JSON (RFC 9110, 12.5.1); JSON wins a tie."""
    weights: dict[str, float] = {}
    for part in accept.split(","):
        media, *parameters = (p.strip() for p in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            weights.setdefault(media.lower(), float(weight))
        except ValueError:
            continue
    html = weights.get("text/html", weights.get("text/*", 0.0))
    json = weights.get("application/json", weights.get("application/*", weights.get("*/*", 0.0)))
    return html > json

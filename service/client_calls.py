"""Calls of the client about jobs, their trials and schedules, and whether the service is ready."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from service.client_errors import WaitTimeout
from service.client_flow import Emit, Flow, Items, Json, Pause, Send, answer, document, get, items_of, pages

FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True)
class Delta:
    """What changed since a revision. next: hand it to the next call; complete: nothing newer was left out."""

    items: tuple[Json, ...]
    next: int
    complete: bool


def post(path: str, body: Any = None, *, key: str | None = None, **options: Any) -> Flow[Json]:
    """With an Idempotency-Key, given or made up, so that it may be sent again when no answer came."""
    headers = {"Idempotency-Key": key or secrets.token_hex(16)}
    content = {} if body is None else {"json": body}
    return (yield from document(Send("POST", path, {"headers": headers, **content, **options})))


def delete(path: str) -> Flow[None]:
    yield from answer(Send("DELETE", path))


# -- jobs --------------------------------------------------------------------------------------------------------------


def submit(spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Flow[Json]:
    """idempotency_key: the same one never starts a second job; left out, it holds for this call's own retries."""
    return (yield from post("/v1/jobs", dict(spec), key=idempotency_key))


def job(job_id: str) -> Flow[Json]:
    return (yield from get(f"/v1/jobs/{job_id}"))


def jobs(*, state: str | None = None, limit: int = 50) -> Flow[tuple[Json, ...]]:
    """Newest first."""
    return items_of((yield from get("/v1/jobs", state=state, limit=limit)))


def cancel(job_id: str) -> Flow[Json]:
    return (yield from post(f"/v1/jobs/{job_id}/cancel"))


def pause(job_id: str) -> Flow[Json]:
    return (yield from post(f"/v1/jobs/{job_id}/pause"))


def resume(job_id: str) -> Flow[Json]:
    return (yield from post(f"/v1/jobs/{job_id}/resume"))


def retry(job_id: str) -> Flow[Json]:
    """A failed or cancelled job goes on from what it has."""
    return (yield from post(f"/v1/jobs/{job_id}/retry"))


def delete_job(job_id: str) -> Flow[None]:
    """With its trials, log and files. Refused until it has ended."""
    yield from delete(f"/v1/jobs/{job_id}")


def wait(
    job_id: str,
    *,
    timeout_s: float | None = None,
    poll_s: float = 0.5,
    on_change: Callable[[Json], None] | None = None,
) -> Flow[Json]:
    """Polls (with the job's ETag, so an unchanged job costs a 304) until the job is in a final state.

    Raises WaitTimeout after timeout_s. on_change sees the job each time its revision has moved.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    etag, found = "", {}
    while True:
        response = yield from _job_if_changed(job_id, etag)
        if response.status_code != 304:
            etag, found = response.headers.get("ETag", ""), response.json()
            if on_change is not None:
                on_change(found)
        if found.get("state") in FINAL_STATES:
            return found
        if deadline is not None and time.monotonic() >= deadline:
            raise WaitTimeout(job_id, str(found.get("state")), timeout_s or 0.0)
        yield Pause(poll_s)


def _job_if_changed(job_id: str, etag: str) -> Flow[httpx.Response]:
    headers = {"If-None-Match": etag} if etag else {}
    return (yield from answer(Send("GET", f"/v1/jobs/{job_id}", {"headers": headers})))


# -- trials ------------------------------------------------------------------------------------------------------------


def trials(job_id: str, *, after_rev: int = 0, limit: int = 500) -> Flow[Delta]:
    """Trials changed after a revision, oldest change first."""
    page = yield from get(f"/v1/jobs/{job_id}/trials", after_rev=after_rev, limit=limit)
    items = items_of(page)
    return Delta(items, int(page.get("next_rev", after_rev)), len(items) < limit)


def iterate_trials(
    job_id: str, *, after_rev: int = 0, follow: bool = False, poll_s: float = 0.5, limit: int = 500
) -> Items[Json]:
    """Every change of a trial after a revision, in order; each trial holds its `rev`.

    follow: goes on with what changes from now on, until the job has ended. An unchanged job costs a 304.
    """
    etag, ended = "", not follow
    while True:
        if follow:
            response = yield from _job_if_changed(job_id, etag)
            if response.status_code == 304:
                yield Pause(poll_s)
                continue
            etag, ended = response.headers.get("ETag", ""), response.json()["state"] in FINAL_STATES
        complete = False
        while not complete:
            delta = yield from trials(job_id, after_rev=after_rev, limit=limit)
            for item in delta.items:
                yield Emit(item)
            complete = delta.complete or delta.next == after_rev
            after_rev = delta.next
        if ended:
            return
        yield Pause(poll_s)


def all_trials(job_id: str) -> Flow[list[Json]]:
    """Every trial in order of its number."""
    found: dict[int, Json] = {}
    after, complete = 0, False
    while not complete:
        delta = yield from trials(job_id, after_rev=after)
        found.update((int(t["number"]), t) for t in delta.items)
        complete = delta.complete or delta.next == after
        after = delta.next
    return [found[number] for number in sorted(found)]


def trial(job_id: str, number: int) -> Flow[Json]:
    return (yield from get(f"/v1/jobs/{job_id}/trials/{number}"))


def front(job_id: str) -> Flow[tuple[Json, ...]]:
    return items_of((yield from get(f"/v1/jobs/{job_id}/front")))


def logs(job_id: str, *, after: int = 0, limit: int = 1000) -> Flow[Delta]:
    """Log lines after one; give `next` to the next call."""
    page = yield from get(f"/v1/jobs/{job_id}/logs", after=after, limit=limit)
    items = items_of(page)
    return Delta(items, int(page.get("next", after)), len(items) < limit)


def report(job_id: str) -> Flow[Json]:
    return (yield from document(_report(job_id, "application/json")))


def report_html(job_id: str) -> Flow[str]:
    return (yield from answer(_report(job_id, "text/html"))).text


def _report(job_id: str, media_type: str) -> Send:
    return Send("GET", f"/v1/jobs/{job_id}/report", {"headers": {"Accept": media_type}})


# -- schedules ---------------------------------------------------------------------------------------------------------


def schedules() -> Flow[tuple[Json, ...]]:
    return items_of((yield from get("/v1/schedules")))


def create_schedule(schedule: Mapping[str, Any], *, idempotency_key: str | None = None) -> Flow[Json]:
    return (yield from post("/v1/schedules", dict(schedule), key=idempotency_key))


def schedule_runs(schedule_id: str) -> Items[Json]:
    """What became of its ticks, newest first, fetched as they are asked for."""
    yield from pages(f"/v1/schedules/{schedule_id}/runs")


def delete_schedule(schedule_id: str) -> Flow[None]:
    yield from delete(f"/v1/schedules/{schedule_id}")


def run_schedule(schedule_id: str, *, idempotency_key: str | None = None) -> Flow[Json]:
    return (yield from post(f"/v1/schedules/{schedule_id}/run", key=idempotency_key))


# -- the service -------------------------------------------------------------------------------------------------------


def is_ready() -> Flow[bool]:
    """True once the service takes requests. Never raises for a service that is still starting."""
    try:
        response: httpx.Response = yield Send("GET", "/readyz", {"timeout": 2.0}, repeatable=False)
    except httpx.TransportError:
        return False
    return response.status_code == 200

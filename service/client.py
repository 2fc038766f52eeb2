"""A synchronous client of the HTTP API: one method per call of the contract, JSON in and out.

Imports neither torch nor FastAPI. Every method raises ServiceProblem when the service refuses and ServiceUnreachable
when it does not answer.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import httpx

from service.client_access import AccessCalls, key_header, pages
from service.client_errors import DamagedDownload, ServiceProblem, ServiceUnreachable, WaitTimeout
from service.client_webhooks import WebhookCalls
from service.webhook_signature import BadSignature, verify_webhook

__all__ = ["BadSignature", "Client", "Delta", "verify_webhook"]
DEFAULT_URL = "http://127.0.0.1:8080"
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})

Json = dict[str, Any]
Artifact = Literal["winner", "baseline"]


@dataclass(frozen=True)
class Delta:
    """What changed since a revision. next: hand it to the next call; complete: nothing newer was left out."""

    items: tuple[Json, ...]
    next: int
    complete: bool


class Client(AccessCalls, WebhookCalls):
    """Talks to one service. Use it as a context manager, or call `close`.

    timeout_s: for an answer to begin; uploads may take longer because the service reads every row before it answers.
    transport: for tests (an ASGI or mock transport).
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        timeout_s: float = 30.0,
        upload_timeout_s: float = 600.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._upload_timeout_s = upload_timeout_s
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # -- files ---------------------------------------------------------------------------------------------------

    def upload_model(self, path: Path, name: str | None = None) -> Json:
        """Streams a .pt2 to the service; the same bytes give the same id."""
        return self._upload("/v1/models", path, name)

    def upload_dataset(self, path: Path, name: str | None = None) -> Json:
        """Streams a parquet, npz or safetensors file; the same bytes give the same id."""
        return self._upload("/v1/datasets", path, name)

    def models(self, *, name: str | None = None) -> tuple[Json, ...]:
        """Newest first. name: only its versions, the latest first; a job may say `name@latest`."""
        return _items(self._json("GET", "/v1/models", params={} if name is None else {"name": name}))

    def datasets(self, *, name: str | None = None) -> tuple[Json, ...]:
        """Like models."""
        return _items(self._json("GET", "/v1/datasets", params={} if name is None else {"name": name}))

    # -- jobs ----------------------------------------------------------------------------------------------------

    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Json:
        return self._json("POST", "/v1/jobs", json=dict(spec), headers=key_header(idempotency_key))

    def job(self, job_id: str) -> Json:
        return self._json("GET", f"/v1/jobs/{job_id}")

    def jobs(self, *, state: str | None = None, limit: int = 50) -> tuple[Json, ...]:
        """Newest first."""
        params = {"limit": limit, **({"state": state} if state else {})}
        return _items(self._json("GET", "/v1/jobs", params=params))

    def cancel(self, job_id: str) -> Json:
        return self._json("POST", f"/v1/jobs/{job_id}/cancel")

    def pause(self, job_id: str) -> Json:
        return self._json("POST", f"/v1/jobs/{job_id}/pause")

    def resume(self, job_id: str) -> Json:
        return self._json("POST", f"/v1/jobs/{job_id}/resume")

    def retry(self, job_id: str) -> Json:
        """A failed or cancelled job goes on from what it has."""
        return self._json("POST", f"/v1/jobs/{job_id}/retry")

    def trials(self, job_id: str, *, after_rev: int = 0, limit: int = 500) -> Delta:
        """Trials changed after a revision, oldest change first."""
        page = self._json("GET", f"/v1/jobs/{job_id}/trials", params={"after_rev": after_rev, "limit": limit})
        items = _items(page)
        return Delta(items, int(page.get("next_rev", after_rev)), len(items) < limit)

    def all_trials(self, job_id: str) -> list[Json]:
        """Every trial in order of its number."""
        found: dict[int, Json] = {}
        after, complete = 0, False
        while not complete:
            delta = self.trials(job_id, after_rev=after)
            found.update((int(t["number"]), t) for t in delta.items)
            complete = delta.complete or delta.next == after
            after = delta.next
        return [found[number] for number in sorted(found)]

    def trial(self, job_id: str, number: int) -> Json:
        return self._json("GET", f"/v1/jobs/{job_id}/trials/{number}")

    def front(self, job_id: str) -> tuple[Json, ...]:
        return _items(self._json("GET", f"/v1/jobs/{job_id}/front"))

    def logs(self, job_id: str, *, after: int = 0, limit: int = 1000) -> Delta:
        """Log lines after one; give `next` to the next call."""
        page = self._json("GET", f"/v1/jobs/{job_id}/logs", params={"after": after, "limit": limit})
        items = _items(page)
        return Delta(items, int(page.get("next", after)), len(items) < limit)

    def wait(
        self,
        job_id: str,
        *,
        timeout_s: float | None = None,
        poll_s: float = 0.5,
        on_change: Callable[[Json], None] | None = None,
    ) -> Json:
        """Polls (with the job's ETag, so an unchanged job costs a 304) until the job is in a final state.

        Raises WaitTimeout after timeout_s. on_change sees the job each time its revision has moved.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        etag, job = "", {}
        while True:
            response = self._send("GET", f"/v1/jobs/{job_id}", headers={"If-None-Match": etag} if etag else {})
            if response.status_code != 304:
                etag, job = response.headers.get("ETag", ""), response.json()
                if on_change is not None:
                    on_change(job)
            if job.get("state") in FINAL_STATES:
                return job
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(job_id, str(job.get("state")), timeout_s or 0.0)
            time.sleep(poll_s)

    # -- results -------------------------------------------------------------------------------------------------

    def download_artifact(self, job_id: str, destination: Path, *, which: Artifact = "winner") -> str:
        """Writes the file and returns its sha256 (hex). Raises DamagedDownload, leaving nothing behind."""
        partial = destination.with_name(destination.name + ".part")
        found = hashlib.sha256()
        try:
            with self._stream(f"/v1/jobs/{job_id}/artifact", {"which": which}) as response, partial.open("wb") as file:
                for chunk in response.iter_bytes():
                    found.update(chunk)
                    file.write(chunk)
            expected = announced_sha256(response.headers)
            if expected is not None and expected != found.hexdigest():
                raise DamagedDownload(expected, found.hexdigest())
            partial.replace(destination)
        finally:
            partial.unlink(missing_ok=True)
        return found.hexdigest()

    def report(self, job_id: str) -> Json:
        return self._json("GET", f"/v1/jobs/{job_id}/report", headers={"Accept": "application/json"})

    def report_html(self, job_id: str) -> str:
        return self._send("GET", f"/v1/jobs/{job_id}/report", headers={"Accept": "text/html"}).text

    # -- schedules -----------------------------------------------------------------------------------------------

    def schedules(self) -> tuple[Json, ...]:
        return _items(self._json("GET", "/v1/schedules"))

    def create_schedule(self, schedule: Mapping[str, Any]) -> Json:
        return self._json("POST", "/v1/schedules", json=dict(schedule))

    def schedule_runs(self, schedule_id: str) -> Iterator[Json]:
        """What became of its ticks, newest first, fetched as they are asked for."""
        return pages(self, f"/v1/schedules/{schedule_id}/runs", {})

    def delete_schedule(self, schedule_id: str) -> None:
        self._send("DELETE", f"/v1/schedules/{schedule_id}")

    def run_schedule(self, schedule_id: str) -> Json:
        return self._json("POST", f"/v1/schedules/{schedule_id}/run")

    def is_ready(self) -> bool:
        """True once the service takes work. Never raises for a service that is still starting."""
        try:
            return self._http.get("/readyz", timeout=2.0).status_code == 200
        except httpx.TransportError:
            return False

    # -- plumbing ------------------------------------------------------------------------------------------------

    def _upload(self, path: str, file: Path, name: str | None) -> Json:
        with file.open("rb") as stream:
            response = self._send(
                "POST",
                path,
                files={"file": (file.name, stream, "application/octet-stream")},
                data={"name": name or file.stem},
                timeout=self._upload_timeout_s,
            )
        return _object(response)

    def _json(self, method: str, path: str, **options: Any) -> Json:
        return _object(self._send(method, path, **options))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise ServiceUnreachable(self.url, str(error) or type(error).__name__) from error
        if response.is_success or response.status_code == 304:
            return response
        raise problem_of(response)

    @contextmanager
    def _stream(self, path: str, params: Mapping[str, str]) -> Iterator[httpx.Response]:
        try:
            with self._http.stream("GET", path, params=dict(params)) as response:
                if not response.is_success:
                    response.read()
                    raise problem_of(response)
                yield response
        except httpx.TransportError as error:
            raise ServiceUnreachable(self.url, str(error) or type(error).__name__) from error


def problem_of(response: httpx.Response) -> ServiceProblem:
    """The problem document of a refusal; a plain one when a proxy or a crash answered instead."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {"title": response.reason_phrase or "refused", "detail": response.text[:500]}
    return ServiceProblem(response.status_code, document)


def announced_sha256(headers: Mapping[str, str]) -> str | None:
    """sha256 (hex) of `Digest: sha-256=...` or `Repr-Digest: sha-256=:...:`; None when the header is missing.

    RFC 3230 and RFC 9530 write base64; hex is understood too.
    """
    value = headers.get("Repr-Digest") or headers.get("Digest") or ""
    for part in value.split(","):
        name, _, digest = part.strip().partition("=")
        if name.lower().replace("-", "") != "sha256":
            continue
        digest = digest.strip(":")
        if len(digest) == 64:
            return digest.lower()
        try:
            return base64.b64decode(digest, validate=True).hex()
        except binascii.Error:
            return None
    return None


def _object(response: httpx.Response) -> Json:
    document = response.json() if response.content else {}
    return document if isinstance(document, dict) else {"items": document}


def _items(page: Json) -> tuple[Json, ...]:
    return tuple(page.get("items", ()))

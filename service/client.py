"""The client of the HTTP API, blocking and asynchronous, with the same calls: JSON in and out.

Imports neither torch nor FastAPI. Every call raises ServiceProblem when the service refuses and ServiceUnreachable when
it does not answer. What may pass by itself (429, 502, 503, 504, a broken connection) is tried again first; each POST
carries an Idempotency-Key, so that trying again does nothing twice.

    with Client(token=token) as client:                      async with AsyncClient(token=token) as client:
        job = client.submit(spec)                                job = await client.submit(spec)
        for trial in client.iterate_trials(job["id"]):           async for trial in client.iterate_trials(job["id"]):
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from service import client_access, client_calls, client_events, client_files, client_webhooks
from service.client_errors import ServiceUnreachable
from service.client_flow import Course, Emit, Flow, Items, Pause, Read, Retries, Send
from service.webhook_signature import BadSignature, verify_webhook

__all__ = ["AsyncClient", "BadSignature", "Client", "verify_webhook"]
DEFAULT_URL = "http://127.0.0.1:8080"
P = ParamSpec("P")
T = TypeVar("T")


def _call(call: Callable[P, Flow[T]]) -> Callable[Concatenate[Client, P], T]:
    @functools.wraps(call)
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return client._run(call(*args, **kwargs))

    return method


def _iteration(call: Callable[P, Items[T]]) -> Callable[Concatenate[Client, P], Iterator[T]]:
    @functools.wraps(call)
    def method(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return client._each(call(*args, **kwargs))

    return method


def _async_call(call: Callable[P, Flow[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @functools.wraps(call)
    def method(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return client._run(call(*args, **kwargs))

    return method


def _async_iteration(call: Callable[P, Items[T]]) -> Callable[Concatenate[AsyncClient, P], AsyncIterator[T]]:
    @functools.wraps(call)
    def method(client: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        return client._each(call(*args, **kwargs))

    return method


class Client:
    """Talks to one service. Use it as a context manager, or call `close`.

    timeout_s: for an answer to begin. retries: how often, and how soon, a request is sent again; `Retries(0)`: never.
    transport: for tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._retries = retries
        self._http = httpx.Client(base_url=self.url, headers=_headers(token), timeout=timeout_s, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _run(self, flow: Flow[T]) -> T:
        with Course(flow, self._retries) as course:
            for _ in self._steps(course):
                raise TypeError("a call that is run emits nothing")
            value: T = course.value
            return value

    def _each(self, flow: Items[T]) -> Iterator[T]:
        with Course(flow, self._retries) as course:
            yield from self._steps(course)

    def _steps(self, course: Course[Any]) -> Iterator[Any]:
        response: httpx.Response | None = None
        chunks: Iterator[bytes] = iter(())
        try:
            while (step := course.next()) is not None:
                try:
                    match step:
                        case Send():
                            if response is not None:
                                response.close()
                            request = self._http.build_request(step.method, step.path, **step.options)
                            course.reply = response = self._http.send(request, stream=step.stream)
                            chunks = response.iter_bytes() if step.stream else iter(())
                        case Read():
                            course.reply = next(chunks, None)
                        case Pause():
                            time.sleep(step.seconds)
                        case Emit():
                            yield step.item
                except httpx.TransportError as error:
                    course.error = error
        except httpx.TransportError as error:
            raise _unreachable(self.url, error) from error
        finally:
            if response is not None:
                response.close()

    session = _call(client_access.session)
    upload_model = _call(client_files.upload_model)
    upload_dataset = _call(client_files.upload_dataset)
    models = _call(client_access.models)
    datasets = _call(client_access.datasets)
    delete_model = _call(client_access.delete_model)
    delete_dataset = _call(client_access.delete_dataset)
    submit = _call(client_calls.submit)
    job = _call(client_calls.job)
    jobs = _call(client_calls.jobs)
    cancel = _call(client_calls.cancel)
    pause = _call(client_calls.pause)
    resume = _call(client_calls.resume)
    retry = _call(client_calls.retry)
    wait = _call(client_calls.wait)
    delete_job = _call(client_calls.delete_job)
    events = _iteration(client_events.events)
    trials = _call(client_calls.trials)
    iterate_trials = _iteration(client_calls.iterate_trials)
    all_trials = _call(client_calls.all_trials)
    trial = _call(client_calls.trial)
    front = _call(client_calls.front)
    logs = _call(client_calls.logs)
    download_artifact = _call(client_files.download_artifact)
    report = _call(client_calls.report)
    report_html = _call(client_calls.report_html)
    schedules = _call(client_calls.schedules)
    create_schedule = _call(client_calls.create_schedule)
    schedule_runs = _iteration(client_calls.schedule_runs)
    delete_schedule = _call(client_calls.delete_schedule)
    run_schedule = _call(client_calls.run_schedule)
    create_webhook = _call(client_webhooks.create_webhook)
    webhooks = _iteration(client_webhooks.webhooks)
    change_webhook = _call(client_webhooks.change_webhook)
    delete_webhook = _call(client_webhooks.delete_webhook)
    test_webhook = _call(client_webhooks.send_test)
    webhook_deliveries = _iteration(client_webhooks.webhook_deliveries)
    create_token = _call(client_access.create_token)
    tokens = _iteration(client_access.tokens)
    revoke_token = _call(client_access.revoke_token)
    create_project = _call(client_access.create_project)
    projects = _iteration(client_access.projects)
    delete_project = _call(client_access.delete_project)
    audit = _iteration(client_access.audit)
    is_ready = _call(client_calls.is_ready)


class AsyncClient:
    """`Client` for asyncio: every call is awaited, every iteration is `async for`. Files are read and written in
    pieces on the loop's own thread."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        timeout_s: float = 30.0,
        retries: Retries = Retries(),  # noqa: B008 - frozen
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._retries = retries
        self._http = httpx.AsyncClient(
            base_url=self.url, headers=_headers(token), timeout=timeout_s, transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _run(self, flow: Flow[T]) -> T:
        with Course(flow, self._retries) as course:
            async for _ in self._steps(course):
                raise TypeError("a call that is run emits nothing")
            value: T = course.value
            return value

    async def _each(self, flow: Items[T]) -> AsyncIterator[T]:
        with Course(flow, self._retries) as course:
            async with aclosing(self._steps(course)) as steps:
                async for item in steps:
                    yield item

    async def _steps(self, course: Course[Any]) -> AsyncGenerator[Any]:
        response: httpx.Response | None = None
        chunks: AsyncIterator[bytes] | None = None
        try:
            while (step := course.next()) is not None:
                try:
                    match step:
                        case Send():
                            if response is not None:
                                await response.aclose()
                            request = self._http.build_request(step.method, step.path, **step.options)
                            course.reply = response = await self._http.send(request, stream=step.stream)
                            chunks = response.aiter_bytes() if step.stream else None
                        case Read():
                            course.reply = None if chunks is None else await anext(chunks, None)
                        case Pause():
                            await asyncio.sleep(step.seconds)
                        case Emit():
                            yield step.item
                except httpx.TransportError as error:
                    course.error = error
        except httpx.TransportError as error:
            raise _unreachable(self.url, error) from error
        finally:
            if response is not None:
                await response.aclose()

    session = _async_call(client_access.session)
    upload_model = _async_call(client_files.upload_model)
    upload_dataset = _async_call(client_files.upload_dataset)
    models = _async_call(client_access.models)
    datasets = _async_call(client_access.datasets)
    delete_model = _async_call(client_access.delete_model)
    delete_dataset = _async_call(client_access.delete_dataset)
    submit = _async_call(client_calls.submit)
    job = _async_call(client_calls.job)
    jobs = _async_call(client_calls.jobs)
    cancel = _async_call(client_calls.cancel)
    pause = _async_call(client_calls.pause)
    resume = _async_call(client_calls.resume)
    retry = _async_call(client_calls.retry)
    wait = _async_call(client_calls.wait)
    delete_job = _async_call(client_calls.delete_job)
    events = _async_iteration(client_events.events)
    trials = _async_call(client_calls.trials)
    iterate_trials = _async_iteration(client_calls.iterate_trials)
    all_trials = _async_call(client_calls.all_trials)
    trial = _async_call(client_calls.trial)
    front = _async_call(client_calls.front)
    logs = _async_call(client_calls.logs)
    download_artifact = _async_call(client_files.download_artifact)
    report = _async_call(client_calls.report)
    report_html = _async_call(client_calls.report_html)
    schedules = _async_call(client_calls.schedules)
    create_schedule = _async_call(client_calls.create_schedule)
    schedule_runs = _async_iteration(client_calls.schedule_runs)
    delete_schedule = _async_call(client_calls.delete_schedule)
    run_schedule = _async_call(client_calls.run_schedule)
    create_webhook = _async_call(client_webhooks.create_webhook)
    webhooks = _async_iteration(client_webhooks.webhooks)
    change_webhook = _async_call(client_webhooks.change_webhook)
    delete_webhook = _async_call(client_webhooks.delete_webhook)
    test_webhook = _async_call(client_webhooks.send_test)
    webhook_deliveries = _async_iteration(client_webhooks.webhook_deliveries)
    create_token = _async_call(client_access.create_token)
    tokens = _async_iteration(client_access.tokens)
    revoke_token = _async_call(client_access.revoke_token)
    create_project = _async_call(client_access.create_project)
    projects = _async_iteration(client_access.projects)
    delete_project = _async_call(client_access.delete_project)
    audit = _async_iteration(client_access.audit)
    is_ready = _async_call(client_calls.is_ready)


def _headers(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _unreachable(url: str, error: httpx.TransportError) -> ServiceUnreachable:
    return ServiceUnreachable(url, str(error) or type(error).__name__)

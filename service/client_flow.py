"""What the client does, apart from how: a call is a generator that asks for steps and is told their outcomes.

`service.client` carries the steps out, once in blocking and once in asynchronous code; everything else (paths, retries,
resuming, reading of answers) is written once, here and in the `client_*` modules, and does no network input or output.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import httpx

from service.client_errors import ServiceProblem

T = TypeVar("T")
Json = dict[str, Any]
RETRIED = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Send:
    """Send a request; told: the response. options: as httpx takes them. stream: its body is fetched by Read steps.

    repeatable: sending it twice does no harm, so that it may be sent again when it is not known what became of it.
    """

    method: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    repeatable: bool = True


@dataclass(frozen=True)
class Read:
    """Fetch more of the streamed response; told: bytes, or None at its end."""


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Emit(Generic[T]):
    """Hand an item to whoever iterates over the call."""

    item: T


Flow = Generator[Send | Read | Pause, Any, T]
Items = Generator[Send | Read | Pause | Emit[T], Any, None]
Step = Send | Read | Pause | Emit[Any]


@dataclass(frozen=True)
class Retries:
    """Waits 1, 2, 4 … times `first_s`, less up to half of it by chance, or as long as the service asks for."""

    count: int = 4
    first_s: float = 0.25
    longest_s: float = 30.0

    def delay(self, attempt: int, asked: str | None = None) -> float:
        """Seconds before attempt + 1. asked: the answer's `Retry-After`."""
        if asked is not None and asked.isdecimal():
            return min(float(asked), self.longest_s)
        return min(self.first_s * 2.0**attempt, self.longest_s) * random.uniform(0.5, 1.0)


class Course(Generic[T]):
    """One call under way. The driver takes `next()`, carries it out, sets `reply` or `error`; at the end, `value`."""

    def __init__(self, flow: Generator[Any, Any, T], retries: Retries) -> None:
        self._flow = _with_retries(flow, retries)
        self.reply: Any = None
        self.error: httpx.TransportError | None = None
        self.value: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flow.close()

    def next(self) -> Step | None:
        """None once the call is done. Raises what the call raises."""
        reply, error, self.reply, self.error = self.reply, self.error, None, None
        try:
            return self._flow.send(reply) if error is None else self._flow.throw(error)
        except StopIteration as stop:
            self.value = stop.value
            return None


def _with_retries(flow: Generator[Step, Any, T], retries: Retries) -> Generator[Step, Any, T]:
    reply: Any = None
    error: httpx.TransportError | None = None
    with _closing(flow):
        while True:
            try:
                step = flow.send(reply) if error is None else flow.throw(error)
            except StopIteration as stop:
                value: T = stop.value
                return value
            reply = error = None
            try:
                reply = (yield from _sent(step, retries)) if isinstance(step, Send) else (yield step)
            except httpx.TransportError as failure:
                error = failure


class _closing:  # noqa: N801 - as contextlib's, for a generator that may be closed while it waits
    def __init__(self, flow: Generator[Any, Any, Any]) -> None:
        self._flow = flow

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._flow.close()


def _sent(step: Send, retries: Retries) -> Generator[Step, Any, httpx.Response]:
    lost = False  # an attempt whose end is unknown
    for attempt in itertools.count():
        last = attempt >= retries.count or not step.repeatable
        try:
            response: httpx.Response = yield step
        except httpx.TransportError:
            if last:
                raise
            lost = True
            yield Pause(retries.delay(attempt))
            continue
        if lost and step.method == "DELETE" and response.status_code == 404:
            return httpx.Response(204)  # the lost attempt has deleted it
        if last or response.status_code not in RETRIED:
            return response
        yield Pause(retries.delay(attempt, response.headers.get("Retry-After")))
    raise AssertionError("the last attempt returns or raises")


def answer(step: Send) -> Flow[httpx.Response]:
    """The response, if it is a success or 304. Raises ServiceProblem."""
    response: httpx.Response = yield step
    if not response.is_success and response.status_code != 304:
        yield from refuse(step, response)
    return response


def refuse(step: Send, response: httpx.Response) -> Flow[None]:
    """Raises ServiceProblem."""
    if step.stream:
        body = b""
        while (chunk := (yield Read())) is not None:
            body += chunk
        response = httpx.Response(response.status_code, content=body)
    raise problem_of(response)


def document(step: Send) -> Flow[Json]:
    """The response's JSON object."""
    return object_of((yield from answer(step)))


def get(path: str, **params: Any) -> Flow[Json]:
    return (yield from document(Send("GET", path, {"params": _given(params)})))


def pages(path: str, **params: Any) -> Items[Json]:
    """Items of a list, page by page as they are asked for."""
    cursor: str | None = None
    while True:
        page = yield from get(path, limit=200, cursor=cursor, **params)
        for item in page["items"]:
            yield Emit(item)
        cursor = page.get("next_cursor")
        if cursor is None:
            return


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def object_of(response: httpx.Response) -> Json:
    found = response.json() if response.content else {}
    return found if isinstance(found, dict) else {"items": found}


def items_of(page: Json) -> tuple[Json, ...]:
    return tuple(page.get("items", ()))


def problem_of(response: httpx.Response) -> ServiceProblem:
    """The problem document of a refusal; a plain one when a proxy or a crash answered instead."""
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        found = {"title": response.reason_phrase or "refused", "detail": response.text[:500]}
    return ServiceProblem(response.status_code, found)

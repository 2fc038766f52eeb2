"""The client's side of a job's event stream (server-sent events, as in the HTML standard, section 9.2.6)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from service.client_flow import Emit, Items, Json, Pause, Read, Send, answer

_QUIET_S = 90.0  # of a stream that pings every few seconds: it is dead
_BREAKS = 5  # in a row without an event between them


@dataclass(frozen=True)
class JobEvent:
    """kind: 'job', 'trial' or 'log'. rev: the job's revision it belongs to; hand it to `after` to go on from here."""

    kind: str
    rev: int
    data: Json


def events(job_id: str, *, after: int = 0) -> Items[JobEvent]:
    """Everything since a revision, then live, until the job has ended.

    A stream that breaks is opened again and goes on after the last event, so that none is missed or seen twice.
    """
    breaks, retry_s = 0, 1.0
    while True:
        parser = EventParser(retry_s)
        try:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(after)} if after else {})}
            options = {"headers": headers, "timeout": httpx.Timeout(30.0, read=_QUIET_S)}
            response = yield from answer(Send("GET", f"/v1/jobs/{job_id}/events", options, stream=True))
            if response.status_code == 204:
                return
            while (chunk := (yield Read())) is not None:
                for event in parser.feed(chunk):
                    after, breaks = max(after, event.rev), 0
                    yield Emit(event)
        except httpx.TransportError:
            breaks += 1
            if breaks > _BREAKS:
                raise
        retry_s = parser.retry_s
        yield Pause(retry_s)


class EventParser:
    """Bytes in, whole events out. retry_s: how long the service wants a client to wait before it comes back."""

    def __init__(self, retry_s: float = 1.0) -> None:
        self.retry_s = retry_s
        self._rest = b""
        self._kind, self._id, self._data = "", 0, list[str]()

    def feed(self, chunk: bytes) -> Iterator[JobEvent]:
        *lines, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            event = self._line(line.decode(errors="replace"))
            if event is not None:
                yield event

    def _line(self, line: str) -> JobEvent | None:
        if not line:
            done = JobEvent(self._kind, self._id, json.loads("\n".join(self._data))) if self._data else None
            self._kind, self._data = "", []
            return done
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and value.isdecimal():
            self._id = int(value)
        elif name == "retry" and value.isdecimal():
            self.retry_s = int(value) / 1000
        return None

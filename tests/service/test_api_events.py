from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from service.ledger import SqlLedger
from tests.service.api import RunningApi
from tests.service.rows import make_trial
from tests.service.test_api_jobs import coordinator

Event = tuple[str, int, Any]


@contextmanager
def listening(api: RunningApi, job_id: str, last: int | None = None, **cookies: str) -> Iterator[Iterator[Event | str]]:
    """Events as (kind, id, document); comments as text."""
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    with api.client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield _events(response)


def _events(response: httpx.Response) -> Iterator[Event | str]:
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line.startswith(":"):
            yield line
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield fields["event"], int(fields["id"]), json.loads(fields["data"])
            fields = {}


def until_job(events: Iterator[Event | str]) -> list[Event]:
    """Events up to and with the next `job`, without comments."""
    found: list[Event] = []
    for event in events:
        if isinstance(event, tuple):
            found.append(event)
            if event[0] == "job":
                return found
    raise AssertionError(f"the stream ended after {found}")


def started(api: RunningApi) -> tuple[str, SqlLedger]:
    job_id = api.submit()
    return job_id, coordinator(api)


def test_everything_so_far_comes_first_then_live_changes(api: RunningApi) -> None:
    job_id, ledger = started(api)
    ledger.put_trial(make_trial(0))
    ledger.log("info", "hello", 0)
    with listening(api, job_id) as events:
        first = until_job(events)
        assert [(kind, body.get("number"), body.get("message")) for kind, _, body in first] == [
            ("trial", 0, None),
            ("log", None, "hello"),
            ("job", None, None),
        ]
        assert [i for _, i, _ in first] == sorted(i for _, i, _ in first)
        assert first[0][2] == api.client.get(f"/v1/jobs/{job_id}/trials/0").json()
        assert first[2][2] == api.client.get(f"/v1/jobs/{job_id}").json()
        ledger.put_trial(make_trial(1))
        began = time.monotonic()
        assert [(kind, body.get("number")) for kind, _, body in until_job(events)] == [("trial", 1), ("job", None)]
        assert time.monotonic() - began < 2


def test_a_client_that_comes_back_gets_exactly_what_it_missed(sqlite_api: RunningApi) -> None:
    job_id, ledger = started(sqlite_api)
    for number in range(4):
        ledger.put_trial(make_trial(number))
    with listening(sqlite_api, job_id) as events:
        second = [e for e in (next(events), next(events), next(events)) if isinstance(e, tuple)][1]
    ledger.put_front([0])
    with listening(sqlite_api, job_id, last=second[1]) as events:
        assert [(kind, body.get("number")) for kind, _, body in until_job(events)] == [
            ("trial", 2),
            ("trial", 3),
            ("trial", 0),
            ("job", None),
        ]


def test_long_histories_come_whole_and_in_order(sqlite_api: RunningApi) -> None:
    job_id, ledger = started(sqlite_api)
    for number in range(620):
        ledger.put_trial(make_trial(number))
        if number % 100 == 0:
            ledger.log("info", str(number))
    with listening(sqlite_api, job_id) as events:
        found = until_job(events)
    assert [body["number"] for kind, _, body in found if kind == "trial"] == list(range(620))
    assert [body["message"] for kind, _, body in found if kind == "log"] == [str(100 * n) for n in range(7)]
    ids = [i for _, i, _ in found]
    assert ids == sorted(ids)


def test_a_silent_stream_is_kept_alive_by_comments(sqlite_api: RunningApi) -> None:
    job_id, _ = started(sqlite_api)
    with listening(sqlite_api, job_id) as events:
        until_job(events)
        assert next(events) == ": ping"


def test_the_stream_of_an_ended_job_ends(sqlite_api: RunningApi) -> None:
    job_id, ledger = started(sqlite_api)
    with listening(sqlite_api, job_id) as events:
        until_job(events)
        ledger.finish("succeeded", outcome="feasible", reason=None, report={})
        (kind, rev, job), *_ = until_job(events)
        assert (kind, job["state"]) == ("job", "succeeded")
        assert [e for e in events if isinstance(e, tuple)] == []
    again = sqlite_api.client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": str(rev)})
    assert again.status_code == 204, "an EventSource stops coming back at a 204"


def test_a_last_event_id_that_is_no_revision_is_refused(sqlite_api: RunningApi) -> None:
    job_id, _ = started(sqlite_api)
    response = sqlite_api.client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "x"})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "Last-Event-ID"


def test_a_shutdown_does_not_wait_for_open_streams(sqlite_api: RunningApi) -> None:
    job_id, _ = started(sqlite_api)
    with listening(sqlite_api, job_id) as events:
        until_job(events)
        began = time.monotonic()
        sqlite_api.close()
        assert time.monotonic() - began < 1.5

"""Both clients against a real server: every call of the contract that they wrap, and every way it can fail."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import inspect
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.client import AsyncClient, Client
from service.client_errors import DamagedDownload, ServiceProblem, ServiceUnreachable, WaitTimeout
from service.client_events import EventParser
from service.client_files import announced_sha256
from service.client_flow import Retries
from tests.service import sample_job, seeded
from tests.service.api import DATASET_BYTES, MODEL_BYTES, RunningApi

SOON = Retries(4, first_s=0.01)
NEVER = Retries(0)
Connect = Callable[..., Any]


class Blocking:
    """Calls an AsyncClient as if it were a Client."""

    def __init__(self, runner: asyncio.Runner, client: AsyncClient) -> None:
        self._runner, self._client = runner, client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            result = found(*arguments, **options)
            if isinstance(result, AsyncIterator):
                return self._items(result)
            return self._runner.run(result)

        return call if callable(found) else found

    def _items(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        end = object()
        while (item := self._runner.run(_next(items, end))) is not end:
            yield item


async def _next(items: AsyncIterator[Any], end: object) -> Any:
    return await anext(items, end)


@pytest.fixture(params=["blocking", "asynchronous"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """connect(url, token, **options) gives either client, to be called alike."""
    with asyncio.Runner() as runner:
        opened: list[Client | AsyncClient] = []

        def either(url: str, token: str | None = None, **options: Any) -> Any:
            options = {"retries": SOON, **options}
            if request.param == "blocking":
                opened.append(client := Client(url, token, **options))
                return client
            opened.append(other := AsyncClient(url, token, **options))
            return Blocking(runner, other)

        yield either
        for client in opened:
            if isinstance(client, Client):
                client.close()
            else:
                runner.run(client.close())


@pytest.fixture
def client(connect: Connect, sqlite_api: RunningApi) -> Any:
    return connect(sqlite_api.url, sqlite_api.token)


def data_dir(api: RunningApi) -> Path:
    return api.settings.data_dir


class Script:
    """A transport that answers by a list of responses, or breaks off where it holds an exception."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.bodies.append(request.content)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body whose connection breaks after these bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        raise httpx.ReadError("connection lost")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content
        raise httpx.ReadError("connection lost")


def digest(content: bytes) -> dict[str, str]:
    return {"Digest": "sha-256=" + base64.b64encode(hashlib.sha256(content).digest()).decode()}


class TestOnARealServer:
    def test_uploads_are_streamed_and_named_after_the_file(self, client: Any, tmp_path: Path) -> None:
        (tmp_path / "net.pt2").write_bytes(MODEL_BYTES)
        (tmp_path / "rows.npz").write_bytes(DATASET_BYTES)
        model = client.upload_model(tmp_path / "net.pt2")
        dataset = client.upload_dataset(tmp_path / "rows.npz", "my rows")
        assert model["name"] == "net"
        assert model["sha256"] == hashlib.sha256(MODEL_BYTES).hexdigest()
        assert dataset["name"] == "my rows"
        assert client.upload_model(tmp_path / "net.pt2")["id"] == model["id"]
        assert [m["id"] for m in client.models()] == [model["id"]]
        assert [d["id"] for d in client.datasets()] == [dataset["id"]]

    def test_submit_list_and_steer(self, client: Any, sqlite_api: RunningApi) -> None:
        spec = sqlite_api.spec()
        job = client.submit(spec, idempotency_key="once")
        assert client.submit(spec, idempotency_key="once")["id"] == job["id"]
        assert [j["id"] for j in client.jobs(state="queued")] == [job["id"]]
        assert client.pause(job["id"])["state"] == "paused"
        assert client.resume(job["id"])["state"] == "queued"
        assert client.cancel(job["id"])["state"] == "cancelled"
        assert client.job(job["id"])["state"] == "cancelled"

    def test_trials_come_in_deltas(self, client: Any, sqlite_api: RunningApi) -> None:
        rows = sample_job.trials()
        job_id, ledger = seeded.add_running(sqlite_api.database, data_dir(sqlite_api), rows[:10])
        first = client.trials(job_id, limit=4)
        assert (len(first.items), first.complete) == (4, False)
        assert [t["number"] for t in client.all_trials(job_id)] == list(range(10))
        rest = client.trials(job_id)
        ledger.put_trial(rows[10])
        changed = client.trials(job_id, after_rev=rest.next)
        assert [t["number"] for t in changed.items] == [10]
        assert client.trial(job_id, 8)["metric"] == rows[8].metric
        assert {t["number"] for t in client.front(job_id)} == {t.number for t in rows[:10] if t.on_front}
        lines = client.logs(job_id)
        assert "0.8802" in lines.items[0]["message"]
        assert client.logs(job_id, after=lines.next).items == ()

    def test_wait_returns_the_ended_job_and_reports_changes(self, client: Any, sqlite_api: RunningApi) -> None:
        job_id, ledger = seeded.add_running(sqlite_api.database, data_dir(sqlite_api), sample_job.trials(5))
        seen: list[str] = []

        def end() -> None:
            time.sleep(0.3)
            ledger.finish("succeeded", outcome="nearest_miss", reason="because", report={})

        ending = threading.Thread(target=end)
        ending.start()
        job = client.wait(job_id, timeout_s=10, poll_s=0.05, on_change=lambda j: seen.append(j["state"]))
        ending.join()
        assert job["outcome"] == "nearest_miss"
        assert seen == ["running", "succeeded"]  # unchanged polls are answered with 304 and not reported

    def test_wait_gives_up_in_time(self, client: Any, sqlite_api: RunningApi) -> None:
        job_id = sqlite_api.submit()
        with pytest.raises(WaitTimeout, match=f"bantam watch {job_id}"):
            client.wait(job_id, timeout_s=0.1, poll_s=0.02)

    def test_downloads_are_checked(self, client: Any, sqlite_api: RunningApi, tmp_path: Path) -> None:
        job_id = seeded.add_finished(sqlite_api.database, data_dir(sqlite_api))
        target = tmp_path / "winner.onnx"
        assert client.download_artifact(job_id, target) == hashlib.sha256(seeded.WINNER_BYTES).hexdigest()
        assert target.read_bytes() == seeded.WINNER_BYTES
        client.download_artifact(job_id, tmp_path / "baseline.onnx", which="baseline")
        assert (tmp_path / "baseline.onnx").read_bytes() == seeded.BASELINE_BYTES
        assert client.report(job_id)["winner"]["test_metric"] == 0.8655
        assert client.report_html(job_id).startswith("<!doctype html>")

    def test_a_problem_names_field_and_remedy(self, client: Any, sqlite_api: RunningApi) -> None:
        with pytest.raises(ServiceProblem) as caught:
            client.submit(sqlite_api.spec(budget={"latency_ratio": 0.5, "latency_ms": 2}))
        assert caught.value.status == 422
        assert [f.field for f in caught.value.fields] == ["budget"]
        assert "latency_ms and latency_ratio limit the same thing; keep one" in str(caught.value)

    def test_a_missing_token_says_where_it_is(self, connect: Connect, sqlite_api: RunningApi) -> None:
        with pytest.raises(ServiceProblem, match="BANTAM_TOKEN"):
            connect(sqlite_api.url).jobs()

    def test_an_upload_tells_how_far_it_is(self, client: Any, tmp_path: Path) -> None:
        path = tmp_path / "net.pt2"
        path.write_bytes(MODEL_BYTES + bytes(200_000))
        seen: list[tuple[int, int]] = []
        model = client.upload_model(path, on_progress=lambda sent, total: seen.append((sent, total)))
        assert model["bytes"] == path.stat().st_size
        assert len(seen) > 2 and seen == sorted(seen) and seen[-1] == (path.stat().st_size,) * 2

    def test_trials_are_iterated_until_the_job_ends(self, client: Any, sqlite_api: RunningApi) -> None:
        rows = sample_job.trials(6)
        job_id, ledger = seeded.add_running(sqlite_api.database, data_dir(sqlite_api), rows[:5])
        assert sorted(t["number"] for t in client.iterate_trials(job_id, limit=2)) == list(range(5))
        seen = []
        for trial in client.iterate_trials(job_id, follow=True, poll_s=0.02, limit=2):
            seen.append(trial["rev"])
            if len(seen) == 5:
                ledger.put_trial(rows[5])
                ledger.finish("succeeded", outcome="feasible", reason=None, report={})
        assert len(seen) == 6 and seen == sorted(set(seen))

    def test_events_come_once_each_until_the_job_ends(self, client: Any, sqlite_api: RunningApi) -> None:
        rows = sample_job.trials(6)
        job_id, ledger = seeded.add_running(sqlite_api.database, data_dir(sqlite_api), rows[:5])
        ledger.finish("succeeded", outcome="feasible", reason=None, report={})
        events = list(client.events(job_id))
        assert sorted(e.data["number"] for e in events if e.kind == "trial") == list(range(5))
        assert {e.kind for e in events} == {"job", "trial", "log"}
        last = events[-1]
        assert (last.kind, last.data["state"], last.rev) == ("job", "succeeded", client.job(job_id)["rev"])
        assert list(client.events(job_id, after=last.rev)) == []

    def test_a_download_goes_on_where_an_earlier_one_broke_off(
        self, client: Any, sqlite_api: RunningApi, tmp_path: Path
    ) -> None:
        job_id = seeded.add_finished(sqlite_api.database, data_dir(sqlite_api))
        target, partial = tmp_path / "winner.onnx", tmp_path / "winner.onnx.part"
        seen: list[int] = []
        for left_over in (seeded.WINNER_BYTES[:7], b"another file, " * 9, b"rubbish"):
            partial.write_bytes(left_over)
            client.download_artifact(job_id, target, on_progress=lambda done, total: seen.append(done))
            assert target.read_bytes() == seeded.WINNER_BYTES and not partial.exists()
        assert seen[0] == len(seeded.WINNER_BYTES)

    def test_tokens_projects_and_the_audit_log(self, client: Any, connect: Connect, sqlite_api: RunningApi) -> None:
        client.create_project("vision")
        assert "vision" in {p["id"] for p in client.projects()}
        made = client.create_token("ci", scopes=["read"], project="vision")
        assert connect(sqlite_api.url, made["token"]).session()["project"] == "vision"
        assert made["id"] in {t["id"] for t in client.tokens()}
        client.revoke_token(made["id"])
        assert any(row["method"] == "DELETE" for row in client.audit())
        assert client.is_ready() in (True, False)


class TestOnABadNetwork:
    """Answers by a script; what was sent is looked at."""

    def test_a_lost_or_refused_post_is_sent_again_with_one_key(self, connect: Connect) -> None:
        refused = httpx.Response(429, headers={"Retry-After": "0"}, json={"title": "slow"})
        script = Script(
            httpx.ConnectError("no"), httpx.ReadError("cut"), refused, httpx.Response(202, json={"id": "j"})
        )
        client = connect("http://x", transport=script.transport)
        assert client.submit({"name": "edge"})["id"] == "j"
        keys = {r.headers["Idempotency-Key"] for r in script.requests}
        assert len(script.requests) == 4 and len(keys) == 1
        assert {json.loads(b)["name"] for b in script.bodies} == {"edge"}

    def test_it_gives_up_after_the_last_try(self, connect: Connect) -> None:
        away = [httpx.Response(503, headers={"Retry-After": "0"}, json={"title": "away"}) for _ in range(5)]
        script = Script(*away)
        with pytest.raises(ServiceProblem, match="away"):
            connect("http://x", transport=script.transport).job("j")
        assert len(script.requests) == 5

    def test_what_is_wrong_is_sent_once(self, connect: Connect) -> None:
        script = Script(httpx.Response(422, json={"title": "wrong"}))
        with pytest.raises(ServiceProblem, match="wrong"):
            connect("http://x", transport=script.transport).submit({})

    def test_a_deletion_whose_answer_was_lost_has_happened(self, connect: Connect) -> None:
        script = Script(httpx.ReadError("cut"), httpx.Response(404, json={"title": "gone"}))
        connect("http://x", transport=script.transport).delete_job("j")
        again = Script(httpx.Response(404, json={"title": "gone"}))
        with pytest.raises(ServiceProblem, match="gone"):
            connect("http://x", transport=again.transport).delete_job("j")

    def test_a_broken_download_fetches_the_rest(self, connect: Connect, tmp_path: Path) -> None:
        whole = b"0123456789"
        script = Script(
            httpx.Response(200, stream=Broken(whole[:4]), headers={**digest(whole), "ETag": '"e"'}),
            httpx.Response(206, content=whole[4:], headers={**digest(whole), "ETag": '"e"'}),
        )
        client = connect("http://x", transport=script.transport)
        assert client.download_artifact("j", tmp_path / "f") == hashlib.sha256(whole).hexdigest()
        assert (tmp_path / "f").read_bytes() == whole
        assert script.requests[1].headers["Range"] == "bytes=4-" and script.requests[1].headers["If-Range"] == '"e"'

    def test_a_damaged_download_leaves_nothing(self, connect: Connect, tmp_path: Path) -> None:
        script = Script(httpx.Response(200, content=b"what arrived", headers=digest(b"what was sent")))
        with pytest.raises(DamagedDownload):
            connect("http://x", transport=script.transport).download_artifact("j", tmp_path / "winner.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_a_refused_download_names_the_reason(self, connect: Connect, tmp_path: Path) -> None:
        script = Script(httpx.Response(409, json={"title": "Conflict", "detail": "not yet"}))
        with pytest.raises(ServiceProblem, match="not yet"):
            connect("http://x", transport=script.transport).download_artifact("j", tmp_path / "f")

    def test_a_broken_stream_goes_on_after_the_last_event(self, connect: Connect) -> None:
        first = b'retry: 1\n\nevent: trial\nid: 7\ndata: {"number": 1}\n\nevent: trial\nid: 8\nda'
        second = b'retry: 1\n\nevent: trial\nid: 8\ndata: {"number": 2}\n\n'
        script = Script(
            httpx.Response(200, stream=Broken(first)), httpx.Response(200, content=second), httpx.Response(204)
        )
        client = connect("http://x", transport=script.transport)
        assert [(e.rev, e.data["number"]) for e in client.events("j")] == [(7, 1), (8, 2)]
        assert [r.headers.get("Last-Event-ID") for r in script.requests] == [None, "7", "8"]

    def test_an_answer_that_is_no_problem_document_is_still_one(self, connect: Connect) -> None:
        script = Script(httpx.Response(502, text="<h1>proxy</h1>"))
        with pytest.raises(ServiceProblem, match="Bad Gateway") as caught:
            connect("http://x", transport=script.transport, retries=NEVER).jobs()
        assert "proxy" in str(caught.value)

    def test_nobody_answers(self, connect: Connect) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and nobody listens
            client = connect(f"http://127.0.0.1:{taken.getsockname()[1]}")
            with pytest.raises(ServiceUnreachable, match="bantam serve"):
                client.jobs()
            assert not client.is_ready()


def test_both_clients_have_the_same_calls() -> None:
    blocking, asynchronous = (
        {name: inspect.signature(getattr(kind, name)) for name in dir(kind) if not name.startswith("_")}
        for kind in (Client, AsyncClient)
    )
    assert blocking == asynchronous and len(blocking) > 35


def test_events_are_parsed_whatever_the_pieces_are() -> None:
    text = b': ping\r\n\r\nretry: 2500\nevent: log\nid: 3\ndata: {"message":\ndata:  "a"}\n\n'
    for size in (1, 2, 5, len(text)):
        parser = EventParser()
        found = [e for i in range(0, len(text), size) for e in parser.feed(text[i : i + size])]
        assert [(e.kind, e.rev, e.data) for e in found] == [("log", 3, {"message": "a"})]
        assert parser.retry_s == 2.5


def test_pauses_grow_and_obey_the_service() -> None:
    retries = Retries(count=4, first_s=1.0, longest_s=5.0)
    assert all(0.5 <= retries.delay(0) <= 1 and 2 <= retries.delay(2) <= 4 for _ in range(20))
    assert retries.delay(9) <= 5 and retries.delay(0, "3") == 3 and retries.delay(0, "9000") == 5


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"Digest": "sha-256=" + base64.b64encode(bytes(32)).decode()}, "00" * 32),
        ({"Repr-Digest": "sha-256=:" + base64.b64encode(bytes(32)).decode() + ":"}, "00" * 32),
        ({"Digest": "md5=abc, sha-256=" + "AB" * 32}, "ab" * 32),
        ({"Digest": "sha-256=!"}, None),
    ],
)
def test_announced_digests(headers: dict[str, str], found: str | None) -> None:
    assert announced_sha256(headers) == found

"""The client against a real server: every call of the contract that it wraps, and every way in which one can fail."""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.client import Client, announced_sha256
from service.client_errors import DamagedDownload, ServiceProblem, ServiceUnreachable, WaitTimeout
from tests.service import sample_job, seeded
from tests.service.api import DATASET_BYTES, MODEL_BYTES, RunningApi


@pytest.fixture
def client(sqlite_api: RunningApi) -> Iterator[Client]:
    with Client(sqlite_api.url, sqlite_api.token) as client:
        yield client


def data_dir(api: RunningApi) -> Path:
    return api.settings.data_dir


def test_uploads_are_streamed_and_named_after_the_file(client: Client, tmp_path: Path) -> None:
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


def test_submit_list_and_steer(client: Client, sqlite_api: RunningApi) -> None:
    spec = sqlite_api.spec()
    job = client.submit(spec, idempotency_key="once")
    assert client.submit(spec, idempotency_key="once")["id"] == job["id"]
    assert [j["id"] for j in client.jobs(state="queued")] == [job["id"]]
    assert client.pause(job["id"])["state"] == "paused"
    assert client.resume(job["id"])["state"] == "queued"
    assert client.cancel(job["id"])["state"] == "cancelled"
    assert client.job(job["id"])["state"] == "cancelled"


def test_trials_come_in_deltas(client: Client, sqlite_api: RunningApi) -> None:
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


def test_wait_returns_the_ended_job_and_reports_changes(client: Client, sqlite_api: RunningApi) -> None:
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


def test_wait_gives_up_in_time(client: Client, sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    with pytest.raises(WaitTimeout, match=f"bantam watch {job_id}"):
        client.wait(job_id, timeout_s=0.1, poll_s=0.02)


def test_downloads_are_checked(client: Client, sqlite_api: RunningApi, tmp_path: Path) -> None:
    job_id = seeded.add_finished(sqlite_api.database, data_dir(sqlite_api))
    target = tmp_path / "winner.onnx"
    assert client.download_artifact(job_id, target) == hashlib.sha256(seeded.WINNER_BYTES).hexdigest()
    assert target.read_bytes() == seeded.WINNER_BYTES
    client.download_artifact(job_id, tmp_path / "baseline.onnx", which="baseline")
    assert (tmp_path / "baseline.onnx").read_bytes() == seeded.BASELINE_BYTES
    assert client.report(job_id)["winner"]["test_metric"] == 0.8655
    assert client.report_html(job_id).startswith("<!doctype html>")


def test_a_damaged_download_leaves_nothing(tmp_path: Path) -> None:
    digest = base64.b64encode(hashlib.sha256(b"what was sent").digest()).decode()

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"what arrived", headers={"Digest": f"sha-256={digest}"})

    client = Client("http://x", transport=httpx.MockTransport(answer))
    with pytest.raises(DamagedDownload):
        client.download_artifact("j", tmp_path / "winner.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_problem_names_field_and_remedy(client: Client, sqlite_api: RunningApi) -> None:
    with pytest.raises(ServiceProblem) as caught:
        client.submit(sqlite_api.spec(budget={"latency_ratio": 0.5, "latency_ms": 2}))
    assert caught.value.status == 422
    assert [f.field for f in caught.value.fields] == ["budget"]
    assert "latency_ms and latency_ratio limit the same thing; keep one" in str(caught.value)


def test_a_missing_token_says_where_it_is(sqlite_api: RunningApi) -> None:
    with Client(sqlite_api.url) as client, pytest.raises(ServiceProblem, match="BANTAM_TOKEN"):
        client.jobs()


def test_an_answer_that_is_no_problem_document_is_still_one() -> None:
    client = Client("http://x", transport=httpx.MockTransport(lambda _: httpx.Response(502, text="<h1>proxy</h1>")))
    with pytest.raises(ServiceProblem, match="Bad Gateway") as caught:
        client.jobs()
    assert "proxy" in str(caught.value)


def test_nobody_answers() -> None:
    with Client("http://127.0.0.1:9") as client:
        with pytest.raises(ServiceUnreachable, match="bantam serve"):
            client.jobs()
        assert not client.is_ready()


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

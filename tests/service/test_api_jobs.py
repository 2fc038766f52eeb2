from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from search.ledger import trial_file
from search.records import Baseline, Best, Progress
from service.blobs import BlobStore
from service.leases import Leases
from service.ledger import SqlLedger
from service.tables import jobs
from tests.service.api import RunningApi
from tests.service.rows import make_trial


def coordinator(api: RunningApi) -> SqlLedger:
    """Takes the oldest queued job."""
    lease = Leases(api.database).claim("w", 60)
    assert lease is not None
    return SqlLedger(api.database, BlobStore(api.settings.blobs_dir), lease)


def fields(problem: Mapping[str, Any]) -> dict[str, str]:
    return {e["field"]: e["message"] for e in problem["errors"]}


def count_jobs(api: RunningApi) -> int:
    with api.database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(jobs)).scalar_one())


def test_a_job_is_accepted_and_shown_as_the_contract_says(api: RunningApi) -> None:
    response = api.client.post("/v1/jobs", json=api.spec())
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (job["name"], job["state"], job["reason"], job["outcome"]) == ("edge", "queued", None, None)
    assert job["spec"]["search"]["max_trials"] == 40, "defaults are filled in"
    assert (job["spec"]["task"], job["spec"]["metric"], job["metric_name"]) == (
        "classification",
        None,
        "top-1 accuracy",
    )
    assert datetime.fromisoformat(job["created_at"]).utcoffset() is not None
    assert job["created_at"].endswith("Z")
    assert (job["started_at"], job["finished_at"], job["baseline"], job["best"]) == (None, None, None, None)
    assert set(job["progress"]) == {"finished", "running", "gated", "planned", "elapsed_s", "eta_s", "stage"}
    assert api.client.get(response.headers["Location"]).json() == job


def test_what_the_search_writes_is_shown(api: RunningApi) -> None:
    job_id = api.submit()
    ledger = coordinator(api)
    ledger.put_baseline(Baseline(metric=0.9, latency_ms=2.0, size_bytes=100, macs=10, parameters=5))
    ledger.put_progress(Progress(stage="search", finished=3, running=2, gated=1, planned=40, elapsed_s=7.5, eta_s=60))
    best = Best(trial=2, metric=0.88, latency_ms=1, latency_ratio=0.5, size_bytes=40, size_ratio=0.4, feasible=True)
    ledger.put_best(best)
    job = api.client.get(f"/v1/jobs/{job_id}").json()
    assert job["state"] == "running"
    assert job["baseline"] == {"metric": 0.9, "latency_ms": 2.0, "size_bytes": 100, "macs": 10, "parameters": 5}
    assert job["progress"]["eta_s"] == 60
    assert job["best"]["test_metric"] is None
    assert job["best"]["latency_ratio"] == 0.5
    ledger.finish("succeeded", outcome="feasible", reason=None, report={"winner": 2})
    ended = api.client.get(f"/v1/jobs/{job_id}").json()
    assert (ended["state"], ended["outcome"]) == ("succeeded", "feasible")
    assert ended["finished_at"] >= ended["started_at"] >= ended["created_at"]


def test_an_unchanged_job_is_answered_with_304(api: RunningApi) -> None:
    job_id = api.submit()
    first = api.client.get(f"/v1/jobs/{job_id}")
    assert first.headers["ETag"] == f'"{first.json()["rev"]}"'
    again = api.client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": f'"zzz", W/{first.headers["ETag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    coordinator(api)
    changed = api.client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status_code == 200
    assert changed.json()["rev"] > first.json()["rev"]


def test_the_same_key_gives_the_same_job(api: RunningApi) -> None:
    spec = api.spec()
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda _: api.client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"}), range(4))
        )
    assert {r.status_code for r in answers} == {202}
    assert len({r.json()["id"] for r in answers}) == 1
    assert count_jobs(api) == 1
    other = api.client.post("/v1/jobs", json={**spec, "name": "other"}, headers={"Idempotency-Key": "k"})
    assert other.status_code == 422
    assert list(fields(other.json())) == ["Idempotency-Key"]
    assert api.client.post("/v1/jobs", json=spec).json()["id"] != answers[0].json()["id"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"budget": {}}, "budget"),
        ({"budget": {"latency_ms": 1, "latency_ratio": 0.5}}, "budget"),
        ({"budget": {"latency_ratio": -1}}, "budget.latency_ratio"),
        ({"budget": None}, "budget"),
        ({"target": {"runtime": "tflite"}}, "target.runtime"),
        ({"target": {"threads": 0}}, "target.threads"),
        ({"techniques": ["magic"]}, "techniques[0]"),
        ({"techniques": []}, "techniques"),
        ({"search": {"max_trials": "many"}}, "search.max_trials"),
        ({"speed": 1}, "speed"),
        ({"objective": "latency"}, "objective"),
        ({"model": "m-unknown"}, "model"),
        ({"models": {"teacher": "m-unknown"}}, "models.teacher"),
    ],
)
def test_a_bad_specification_is_refused_by_field(shared_api: RunningApi, change: dict[str, Any], field: str) -> None:
    response = shared_api.client.post("/v1/jobs", json=shared_api.spec(**change))
    assert response.status_code == 422
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "errors"}
    assert list(fields(problem)) == [field]
    assert fields(problem)[field]
    assert count_jobs(shared_api) == 0


def test_every_fault_of_a_request_is_named(shared_api: RunningApi) -> None:
    spec = shared_api.spec(model="m0", budget={"latency_ratio": 0.5})
    spec["data"] = {**spec["data"], "train": "d0", "test": "d1"}
    named = fields(shared_api.client.post("/v1/jobs", json=spec).json())
    assert list(named) == ["model", "data.train", "data.test"]
    assert "POST /v1/models" in named["model"]
    spec = shared_api.spec()
    spec["data"] = {**spec["data"], "inputs": ["pixels"], "target": "class"}
    named = fields(shared_api.client.post("/v1/jobs", json=spec).json())
    assert set(named) == {"data.target", "data.inputs[0]"}
    assert count_jobs(shared_api) == 0


def test_what_is_not_json_is_refused(shared_api: RunningApi) -> None:
    headers = {"Content-Type": "application/json"}
    response = shared_api.client.post("/v1/jobs", content=b"{", headers=headers)
    assert response.status_code == 400
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["", "/trials", "/trials/0", "/front", "/events", "/artifact", "/report", "/logs"])
def test_an_unknown_job_is_a_404_problem_everywhere(shared_api: RunningApi, path: str) -> None:
    response = shared_api.client.get(f"/v1/jobs/nope{path}")
    assert response.status_code == 404
    assert "'nope' does not exist" in response.json()["detail"]


def test_jobs_are_listed_newest_first_page_by_page(api: RunningApi) -> None:
    ids = [api.submit(name=f"job {n}") for n in range(5)]
    coordinator(api)
    seen: list[str] = []
    cursor: str | None = ""
    pages = 0
    while cursor is not None:
        page = api.client.get("/v1/jobs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
        pages += 1
    assert (seen, pages) == (ids[::-1], 3)
    queued = api.client.get("/v1/jobs", params={"state": "queued"}).json()
    assert [job["id"] for job in queued["items"]] == ids[:0:-1]
    assert list(fields(api.client.get("/v1/jobs", params={"cursor": "x!"}).json())) == ["cursor"]
    assert list(fields(api.client.get("/v1/jobs", params={"state": "odd"}).json())) == ["state"]


def test_a_waiting_job_is_paused_resumed_and_cancelled_at_once(sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    states = [
        sqlite_api.client.post(f"/v1/jobs/{job_id}/{wish}") for wish in ("pause", "pause", "resume", "cancel", "cancel")
    ]
    assert [r.status_code for r in states] == [202] * 5
    assert [r.json()["state"] for r in states] == ["paused", "paused", "queued", "cancelled", "cancelled"]
    assert states[-1].json()["finished_at"] is not None
    refused = sqlite_api.client.post(f"/v1/jobs/{job_id}/resume")
    assert refused.status_code == 409
    assert "the job is cancelled" in refused.json()["detail"]


def test_a_job_that_has_ended_is_retried(api: RunningApi) -> None:
    job_id = api.submit(retry={"max_attempts": 2, "delay_s": 60})
    assert api.client.post(f"/v1/jobs/{job_id}/retry").status_code == 409
    coordinator(api).finish("failed", outcome=None, reason="disk died", report=None)
    job = api.client.get(f"/v1/jobs/{job_id}").json()
    [attempt] = job["attempts"]
    assert (attempt["worker"], attempt["reason"]) == ("w", "disk died")
    assert job["started_at"] <= attempt["started_at"] <= attempt["ended_at"] <= job["finished_at"]
    key = {"Idempotency-Key": "again"}
    first, second = (api.client.post(f"/v1/jobs/{job_id}/retry", headers=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert (first.json()["state"], first.json()["reason"], first.json()["finished_at"]) == ("queued", None, None)
    assert first.headers["ETag"] != f'"{job["rev"]}"'
    assert api.client.post(f"/v1/jobs/{job_id}/retry").status_code == 409
    api.client.post(f"/v1/jobs/{job_id}/cancel")
    assert api.client.post(f"/v1/jobs/{job_id}/retry").json()["state"] == "queued"
    assert len(api.client.get(f"/v1/jobs/{job_id}").json()["attempts"]) == 1


def test_a_retry_whose_model_is_gone_is_refused(sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    job = sqlite_api.client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert sqlite_api.client.delete(f"/v1/models/{job['spec']['model']}").status_code == 204
    refused = sqlite_api.client.post(f"/v1/jobs/{job_id}/retry")
    assert refused.status_code == 409
    assert job["spec"]["model"] in refused.json()["detail"]


def test_a_running_job_learns_what_its_owner_wants(sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    ledger = coordinator(sqlite_api)
    assert sqlite_api.client.post(f"/v1/jobs/{job_id}/pause").json()["directive"] == "pause"
    assert ledger.directive() == "pause"
    assert sqlite_api.client.post(f"/v1/jobs/{job_id}/resume").json()["directive"] == "run"
    cancelled = sqlite_api.client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert (cancelled["state"], cancelled["directive"]) == ("running", "cancel")
    assert ledger.directive() == "cancel"
    assert sqlite_api.client.post(f"/v1/jobs/{job_id}/resume").status_code == 409


def test_trials_changed_since_a_revision(api: RunningApi) -> None:
    job_id = api.submit()
    ledger = coordinator(api)
    for number in range(5):
        ledger.put_trial(make_trial(number))
    url = f"/v1/jobs/{job_id}/trials"
    page = api.client.get(url, params={"limit": 3}).json()
    assert [t["number"] for t in page["items"]] == [0, 1, 2]
    rest = api.client.get(url, params={"after_rev": page["next_rev"]}).json()
    assert [t["number"] for t in rest["items"]] == [3, 4]
    nothing = api.client.get(url, params={"after_rev": rest["next_rev"]}).json()
    assert nothing == {"items": [], "next_rev": rest["next_rev"]}
    ledger.put_front([1, 4])
    ledger.put_trial(make_trial(0, state="failed", reason="diverged"))
    changed = api.client.get(url, params={"after_rev": rest["next_rev"]}).json()["items"]
    assert [(t["number"], t["on_front"]) for t in changed] == [(1, True), (4, True), (0, False)]
    front = api.client.get(f"/v1/jobs/{job_id}/front").json()["items"]
    assert [t["number"] for t in front] == [1, 4]


def test_one_trial_is_shown_whole(sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    coordinator(sqlite_api).put_trial(make_trial(7))
    trial = sqlite_api.client.get(f"/v1/jobs/{job_id}/trials/7").json()
    assert trial["latency"] == {
        "p50_ms": 1.0,
        "p90_ms": 1.2,
        "ratio": 0.4,
        "ratio_ci": [0.38, 0.42],
        "repeats": 50,
        "noisy": False,
    }
    assert trial["stages"][1] == {"name": "tune", "seconds": 3.0, "cached": True}
    assert trial["violations"] == [{"field": "size_ratio", "limit": 0.2, "value": 0.25, "excess": 0.05}]
    assert trial["fidelity"] == {"rung": 1, "samples": 500}
    assert trial["rev"] > 0
    assert sqlite_api.client.get(f"/v1/jobs/{job_id}/trials/8").status_code == 404


def test_log_lines_come_in_order(sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    ledger = coordinator(sqlite_api)
    ledger.log("info", "profile")
    ledger.log("warning", "slow", 3)
    page = sqlite_api.client.get(f"/v1/jobs/{job_id}/logs").json()
    assert [(x["level"], x["message"], x["trial"]) for x in page["items"]] == [
        ("info", "profile", None),
        ("warning", "slow", 3),
    ]
    assert sqlite_api.client.get(f"/v1/jobs/{job_id}/logs", params={"after": page["next"]}).json()["items"] == []


def test_the_artifact_carries_its_hash_and_a_harmless_name(sqlite_api: RunningApi, tmp_path: Path) -> None:
    job_id = sqlite_api.submit(name='a/../"b\u00e4')
    early = sqlite_api.client.get(f"/v1/jobs/{job_id}/artifact")
    assert (early.status_code, early.json()["type"]) == (409, "urn:bantam:problem:not-ready")
    ledger = coordinator(sqlite_api)
    for which in ("winner", "baseline"):
        file = tmp_path / f"{which}.onnx"
        file.write_bytes(which.encode() * 1000)
        ledger.put_artifact(which, file)
    response = sqlite_api.client.get(f"/v1/jobs/{job_id}/artifact")
    assert response.content == b"winner" * 1000
    assert response.headers["Content-Type"] == "application/octet-stream"
    digest = base64.b64encode(hashlib.sha256(response.content).digest()).decode()
    assert response.headers["Digest"] == f"sha-256={digest}"
    assert response.headers["Content-Disposition"] == 'attachment; filename="a-..-b-winner.onnx"'
    assert sqlite_api.client.get(f"/v1/jobs/{job_id}/artifact?which=baseline").content == b"baseline" * 1000
    assert sqlite_api.client.get(f"/v1/jobs/{job_id}/artifact?which=other").status_code == 422


def test_members_of_a_kept_front_have_files_of_their_own(sqlite_api: RunningApi, tmp_path: Path) -> None:
    job_id = sqlite_api.submit(name="front")
    ledger = coordinator(sqlite_api)
    ledger.put_trial(make_trial(7))
    file = tmp_path / "trial-7.onnx"
    file.write_bytes(b"seven")
    ledger.put_artifact(trial_file(7), file)
    response = sqlite_api.client.get(f"/v1/jobs/{job_id}/trials/7/artifact")
    assert response.content == b"seven"
    assert response.headers["Content-Disposition"] == 'attachment; filename="front-trial-7.onnx"'
    assert sqlite_api.client.get(f"/v1/jobs/{job_id}/trials/8/artifact").status_code == 409
    ledger.finish("succeeded", outcome="feasible", reason=None, report={})
    gone = sqlite_api.client.get(f"/v1/jobs/{job_id}/trials/8/artifact")
    assert gone.status_code == 404
    assert "the file of trial 8" in gone.json()["detail"]


def test_a_job_that_ended_without_a_winner_says_why(sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    coordinator(sqlite_api).finish("failed", outcome=None, reason="the data are gone", report=None)
    for path in ("artifact", "report"):
        response = sqlite_api.client.get(f"/v1/jobs/{job_id}/{path}")
        assert response.status_code == 404
        assert "the data are gone" in response.json()["detail"]


def test_the_report_comes_as_json_or_as_a_page(sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    ledger = coordinator(sqlite_api)
    assert sqlite_api.client.get(f"/v1/jobs/{job_id}/report").status_code == 409
    ledger.put_trial(make_trial(0))
    ledger.finish("succeeded", outcome="feasible", reason=None, report={"outcome": "feasible"})
    url = f"/v1/jobs/{job_id}/report"
    assert sqlite_api.client.get(url).json() == {"outcome": "feasible", "previous": None}
    page = sqlite_api.client.get(url, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["Content-Type"].startswith("text/html")
    assert "<html" in page.text
    plain = sqlite_api.client.get(url, headers={"Accept": "text/html;q=0.5, application/json"})
    assert plain.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/%00", "/a%00b/trials", f"/x?after={2**70}", "/%ED%A0%80"])
def test_odd_ids_are_answered_with_problems(api: RunningApi, path: str) -> None:
    response = api.client.get(f"/v1/jobs{path}")
    assert response.status_code in (404, 422)
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("query", [f"after_rev={2**64}", "after_rev=-1", "limit=0", "limit=999999", "limit=x"])
def test_odd_ranges_are_refused_by_field(sqlite_api: RunningApi, query: str) -> None:
    response = sqlite_api.client.get(f"/v1/jobs/{sqlite_api.submit()}/trials?{query}")
    assert response.status_code == 422
    assert list(fields(response.json())) == [query.partition("=")[0]]


@pytest.mark.parametrize("name", [r"\u0000", r"\ud800", "x" * 201])
def test_names_that_no_database_keeps_are_refused_or_kept_whole(api: RunningApi, name: str) -> None:
    body = json.dumps(api.spec(name="NAME")).replace("NAME", name)
    response = api.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (202, 422), response.text
    if response.status_code == 202:
        assert api.client.get(response.headers["Location"]).json()["name"] == json.loads(f'"{name}"')

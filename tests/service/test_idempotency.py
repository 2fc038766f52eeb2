from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.service.api import DATASET_BYTES, MODEL_BYTES, RunningApi

KEY = {"Idempotency-Key": "k"}


def is_reused(response: httpx.Response) -> bool:
    return response.status_code == 422 and [e["field"] for e in response.json()["errors"]] == ["Idempotency-Key"]


def test_every_post_that_changes_something_takes_a_key(shared_api: RunningApi) -> None:
    posts = {
        path: [p["name"] for p in operations["post"].get("parameters", []) if p["in"] == "header"]
        for path, operations in shared_api.open.get("/openapi.json").json()["paths"].items()
        if "post" in operations
    }
    without = {path for path, headers in posts.items() if "idempotency-key" not in headers}
    assert without == {"/v1/session"}  # it sets a cookie and stores nothing


@pytest.mark.parametrize("kind", ["schedules", "projects", "tokens"])
def test_a_repeated_creation_makes_one(api: RunningApi, kind: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "schedules": {"name": "n", "cron": "0 3 * * *", "job": api.spec()},
        "projects": {"id": "vision"},
        "tokens": {"name": "ci"},
    }
    before = len(api.client.get(f"/v1/{kind}").json()["items"])
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: api.client.post(f"/v1/{kind}", json=bodies[kind], headers=KEY), range(3)))
    assert {a.status_code for a in answers} == {201}
    assert len({a.json()["id"] for a in answers}) == 1
    assert len({a.headers["Location"] for a in answers}) == 1
    assert len(api.client.get(f"/v1/{kind}").json()["items"]) == before + 1
    if kind == "tokens":
        assert sorted(a.json()["token"] is None for a in answers) == [False, True, True], "a secret is shown once"
    other = {**bodies[kind], "name": "another"}
    assert is_reused(api.client.post(f"/v1/{kind}", json=other, headers=KEY))
    assert is_reused(api.client.post("/v1/jobs", json=api.spec(), headers=KEY)), "nor does it fit another path"


def test_a_repeated_wish_is_not_carried_out_again(api: RunningApi) -> None:
    url = f"/v1/jobs/{api.submit()}"
    assert api.client.post(f"{url}/pause", headers=KEY).json()["state"] == "paused"
    assert api.client.post(f"{url}/resume").json()["state"] == "queued"
    late = api.client.post(f"{url}/pause", headers=KEY)
    assert (late.status_code, late.json()["state"]) == (202, "queued")
    assert is_reused(api.client.post(f"{url}/cancel", headers=KEY))


def test_a_repeated_run_of_a_schedule_is_one_job(sqlite_api: RunningApi) -> None:
    body = {"name": "n", "cron": "0 3 * * *", "job": sqlite_api.spec()}
    url = sqlite_api.client.post("/v1/schedules", json=body).headers["Location"]
    runs = [sqlite_api.client.post(f"{url}/run", headers=KEY) for _ in range(2)]
    assert [r.status_code for r in runs] == [202, 202]
    assert runs[0].json() == runs[1].json()
    assert len(sqlite_api.client.get("/v1/jobs").json()["items"]) == 1


@pytest.mark.parametrize(("kind", "content"), [("models", MODEL_BYTES), ("datasets", DATASET_BYTES)])
def test_a_key_belongs_to_the_bytes_that_came_with_it(sqlite_api: RunningApi, kind: str, content: bytes) -> None:
    answers = [sqlite_api.upload(kind, content, "a", headers=KEY) for _ in range(2)]
    assert [a.status_code for a in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    assert is_reused(sqlite_api.upload(kind, content + b"!", "a", headers=KEY))
    assert is_reused(sqlite_api.upload(kind, content, "b", headers=KEY))
    assert len(sqlite_api.client.get(f"/v1/{kind}").json()["items"]) == 1
    sqlite_api.client.delete(f"/v1/{kind}/{answers[0].json()['id']}")
    assert sqlite_api.upload(kind, content, "a", headers=KEY).status_code == 409, (
        "deleted since; a repetition revives nothing"
    )
    assert sqlite_api.upload(kind, content, "a").status_code == 201


def test_a_refused_request_leaves_its_key_free(sqlite_api: RunningApi) -> None:
    assert sqlite_api.client.post("/v1/jobs", json=sqlite_api.spec(model="m0"), headers=KEY).status_code == 422
    job_id = sqlite_api.submit()
    assert sqlite_api.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    assert sqlite_api.client.post(f"/v1/jobs/{job_id}/pause", headers=KEY).status_code == 409
    assert sqlite_api.client.post("/v1/jobs", json=sqlite_api.spec(), headers=KEY).status_code == 202


def test_a_key_of_odd_length_is_refused(shared_api: RunningApi) -> None:
    for key in ("", "k" * 256):
        response = shared_api.client.post("/v1/jobs", json=shared_api.spec(), headers={"Idempotency-Key": key})
        assert response.status_code == 422

from __future__ import annotations

from typing import Any

import pytest

from service.references import name_in
from tests.service.api import DATASET_BYTES, MODEL_BYTES, RunningApi


def versions(api: RunningApi, name: str, kind: str = "models", **query: Any) -> list[tuple[str, int]]:
    """(id, number), the latest first."""
    items = api.client.get(f"/v1/{kind}", params={"name": name, **query}).json()["items"]
    assert all(item["version"]["name"] == name for item in items)
    return [(item["id"], item["version"]["number"]) for item in items]


def upload(api: RunningApi, content: bytes, name: str = "mine", kind: str = "models") -> str:
    answer = api.upload(kind, content, name)
    assert answer.status_code in (200, 201), answer.text
    identifier: str = answer.json()["id"]
    return identifier


def submitted(api: RunningApi, **change: Any) -> dict[str, Any]:
    answer = api.client.post("/v1/jobs", json={**api.spec(), **change})
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def test_an_id_is_no_name() -> None:
    assert name_in("m0123456789abcdef") is None
    assert name_in("net@latest") == "net"
    assert name_in("a@b@latest") == "a@b"


def test_each_upload_is_the_next_version_of_its_name(api: RunningApi) -> None:
    a = upload(api, MODEL_BYTES)
    assert upload(api, MODEL_BYTES) == a, "the latest bytes again: no new version"
    b = upload(api, b"another model")
    assert versions(api, "mine") == [(b, 2), (a, 1)]
    assert submitted(api, model="mine@latest")["spec"]["model"] == b
    assert upload(api, MODEL_BYTES) == a, "going back is an upload too"
    assert versions(api, "mine") == [(a, 3), (b, 2), (a, 1)]
    job = submitted(api, model="mine@latest", models={"teacher": "mine@latest"})
    assert (job["spec"]["model"], job["spec"]["models"]) == (a, {"teacher": a})
    assert {field: (v["name"], v["version"], v["id"]) for field, v in job["resolved"].items()} == {
        "model": ("mine", 3, a),
        "models.teacher": ("mine", 3, a),
    }
    assert api.client.get(f"/v1/jobs/{job['id']}").json()["resolved"] == job["resolved"]


def test_the_same_bytes_may_have_two_names(api: RunningApi) -> None:
    a = upload(api, MODEL_BYTES, "one")
    assert upload(api, MODEL_BYTES, "two") == a
    assert versions(api, "one") == versions(api, "two") == [(a, 1)]
    assert submitted(api, model="two@latest")["resolved"]["model"]["name"] == "two"


def test_datasets_have_versions_too(api: RunningApi) -> None:
    older = upload(api, DATASET_BYTES, "nightly", "datasets")
    newer = upload(api, b"tonight's rows", "nightly", "datasets")
    data = {**api.spec()["data"], "train": "nightly@latest", "test": newer}
    job = submitted(api, data=data)
    assert job["spec"]["data"]["train"] == newer
    assert list(job["resolved"]) == ["data.train"]
    assert versions(api, "nightly", "datasets") == [(newer, 2), (older, 1)]


def test_versions_are_listed_by_cursor(sqlite_api: RunningApi) -> None:
    for number in range(5):
        upload(sqlite_api, b"model %d" % number)
    upload(sqlite_api, b"model x", "other")
    query: dict[str, Any] = {"name": "mine", "limit": 2}
    numbers = []
    while True:
        page = sqlite_api.client.get("/v1/models", params=query).json()
        numbers += [item["version"]["number"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert numbers == [5, 4, 3, 2, 1]


def test_a_repeated_request_makes_no_version(sqlite_api: RunningApi) -> None:
    upload(sqlite_api, MODEL_BYTES)
    key = {"Idempotency-Key": "tonight"}
    assert sqlite_api.upload("models", b"newer", "mine", headers=key).status_code == 201
    upload(sqlite_api, MODEL_BYTES)
    assert sqlite_api.upload("models", b"newer", "mine", headers=key).status_code == 200
    assert len(versions(sqlite_api, "mine")) == 3


def test_after_the_latest_is_deleted_the_one_before_is_the_latest(sqlite_api: RunningApi) -> None:
    a, b = upload(sqlite_api, MODEL_BYTES), upload(sqlite_api, b"newer")
    schedule = {"name": "n", "cron": "0 3 * * *", "job": {**sqlite_api.spec(), "model": "net2@latest"}}
    assert sqlite_api.client.post("/v1/schedules", json=schedule).status_code == 422
    a, b = upload(sqlite_api, MODEL_BYTES, "net2"), upload(sqlite_api, b"newer", "net2")
    assert sqlite_api.client.post("/v1/schedules", json=schedule).status_code == 201
    assert sqlite_api.client.delete(f"/v1/models/{b}").status_code == 204
    assert versions(sqlite_api, "net2") == [(a, 1)]
    refused = sqlite_api.client.delete(f"/v1/models/{a}")
    assert refused.status_code == 409, "a schedule would be left without any"
    assert "schedule" in refused.json()["detail"]
    upload(sqlite_api, b"newest", "net2")
    assert [number for _, number in versions(sqlite_api, "net2")] == [3, 1], "numbers are not given twice"


def test_names_of_another_project_are_unknown(sqlite_api: RunningApi) -> None:
    upload(sqlite_api, MODEL_BYTES, "secret")
    other = sqlite_api.with_token("submit", project="vision")
    refused = other.post("/v1/jobs", json={**sqlite_api.spec_in("vision"), "model": "secret@latest"})
    assert refused.status_code == 422
    assert other.get("/v1/models", params={"name": "secret"}).json()["items"] == []


@pytest.mark.parametrize(
    ("change", "field"),
    [({"model": "nobody@latest"}, "model"), ({"models": {"teacher": "nobody@latest"}}, "models.teacher")],
)
def test_an_unknown_name_is_refused_by_field(shared_api: RunningApi, change: dict[str, Any], field: str) -> None:
    refused = shared_api.client.post("/v1/jobs", json=shared_api.spec(**change))
    assert refused.status_code == 422
    (error,) = refused.json()["errors"]
    assert error["field"] == field
    assert "no model of this project is called 'nobody'" in error["message"]

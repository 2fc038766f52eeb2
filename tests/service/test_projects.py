from __future__ import annotations

from typing import Any

import pytest

from service.blobs import BlobStore
from service.leases import Leases
from service.ledger import SqlLedger
from tests.service.api import DATASET_BYTES, MODEL_BYTES, RunningApi
from tests.service.rows import make_trial


@pytest.fixture
def tenants(api: RunningApi) -> RunningApi:
    """With a finished job, a schedule and uploads in the project `theirs`."""
    theirs = api.with_token("submit", project="theirs")
    spec = api.spec_in("theirs")
    job = theirs.post("/v1/jobs", json=spec)
    assert job.status_code == 202, job.text
    lease = Leases(api.database).claim("w", 60)
    assert lease is not None
    ledger = SqlLedger(api.database, BlobStore(api.settings.blobs_dir), lease)
    ledger.put_trial(make_trial(0))
    for which in ("winner", "baseline"):
        (api.settings.data_dir / which).write_bytes(b"x")
        ledger.put_artifact(which, api.settings.data_dir / which)
    ledger.finish("succeeded", outcome="feasible", reason=None, report={"outcome": "feasible"})
    assert theirs.post("/v1/schedules", json={"name": "n", "cron": "0 3 * * *", "job": spec}).status_code == 201
    return api


def objects(api: RunningApi) -> dict[str, list[dict[str, Any]]]:
    theirs = api.with_token("read", project="theirs")
    kinds = ("models", "datasets", "jobs", "schedules")
    return {kind: theirs.get(f"/v1/{kind}").json()["items"] for kind in kinds}


def test_another_tenants_object_is_a_404_that_tells_nothing(tenants: RunningApi) -> None:
    found = objects(tenants)
    assert {kind: len(items) for kind, items in found.items()} == {
        "models": 1,
        "datasets": 1,
        "jobs": 1,
        "schedules": 1,
    }
    strangers = (tenants.client, tenants.with_token("admin", project="ours"))
    ids = {kind: items[0]["id"] for kind, items in found.items()}
    job = f"/v1/jobs/{ids['jobs']}"
    calls = [
        *(("GET", f"/v1/{kind}/{key}") for kind, key in ids.items()),
        *(("DELETE", f"/v1/{kind}/{key}") for kind, key in ids.items()),
        *(
            ("GET", job + part)
            for part in ("/trials", "/trials/0", "/front", "/events", "/artifact", "/report", "/logs")
        ),
        ("GET", job + "/artifact?which=baseline"),
        *(("POST", f"{job}/{wish}") for wish in ("cancel", "pause", "resume")),
        ("POST", f"/v1/schedules/{ids['schedules']}/run"),
        ("PATCH", f"/v1/schedules/{ids['schedules']}"),
    ]
    for stranger in strangers:
        for kind in ids:
            assert stranger.get(f"/v1/{kind}").json()["items"] == []
        for method, path in calls:
            body = {"name": "mine"} if method == "PATCH" else None
            response = stranger.request(method, path, json=body)
            assert response.status_code == 404, (method, path, response.text)
            key = path.split("/")[3].partition("?")[0]
            unknown = stranger.request(method, path.replace(key, key[:-1] + "z"), json=body)
            told = response.json()["detail"].replace(key, key[:-1] + "z")
            assert told == unknown.json()["detail"]
    assert objects(tenants) == found


def test_another_tenants_model_cannot_be_used(tenants: RunningApi) -> None:
    stranger = tenants.with_token("submit", project="ours")
    for path, body in (
        ("/v1/jobs", tenants.spec_in("theirs")),
        ("/v1/schedules", {"name": "n", "cron": "0 3 * * *", "job": tenants.spec_in("theirs")}),
    ):
        response = stranger.post(path, json=body)
        assert response.status_code == 422
        named = [e["field"].removeprefix("job.") for e in response.json()["errors"]]
        assert named == ["model", "data.train"]


def test_the_same_bytes_in_two_projects_are_two_uploads_and_one_file(api: RunningApi) -> None:
    ours, theirs = (api.with_token("submit", project=name) for name in ("ours", "theirs"))
    for kind, content in (("models", MODEL_BYTES), ("datasets", DATASET_BYTES)):
        answers = [api.upload(kind, content, client=client) for client in (api.client, ours, theirs, ours)]
        assert [a.status_code for a in answers] == [201, 201, 201, 200]
        assert len({a.json()["id"] for a in answers}) == 3
        assert answers[1].json()["id"] == answers[3].json()["id"]
        assert len({a.json()["sha256"] for a in answers}) == 1
    assert len([p for p in api.settings.blobs_dir.rglob("*") if p.is_file()]) == 2


def test_idempotency_keys_of_two_projects_do_not_meet(api: RunningApi) -> None:
    ids = []
    for project in ("ours", "theirs"):
        client = api.with_token("submit", project=project)
        spec = api.spec_in(project)
        ids += [client.post("/v1/jobs", json=spec, headers={"Idempotency-Key": "k"}).json()["id"] for _ in range(2)]
    assert ids[0] == ids[1] != ids[2] == ids[3]


def test_projects_are_made_listed_and_deleted_when_empty(api: RunningApi) -> None:
    made = api.client.post("/v1/projects", json={"id": "vision", "name": "Vision team"})
    assert made.status_code == 201, made.text
    assert api.client.get(made.headers["Location"]).json() == made.json()
    assert [p["id"] for p in api.client.get("/v1/projects").json()["items"]] == ["vision", "default"]
    again = api.client.post("/v1/projects", json={"id": "vision"})
    assert (again.status_code, again.json()["type"]) == (409, "urn:bantam:problem:exists")

    client = api.with_token("submit", project="vision")
    model = api.upload("models", MODEL_BYTES, client=client).json()["id"]
    refused = api.client.delete("/v1/projects/vision")
    assert refused.status_code == 409
    assert f"is used by model {model}" in refused.json()["detail"]
    assert client.delete(f"/v1/models/{model}").status_code == 204
    assert api.client.delete("/v1/projects/vision").status_code == 204
    assert client.get("/v1/models").status_code == 401, "its tokens are gone with it"
    assert api.client.delete("/v1/projects/vision").status_code == 404
    kept = api.client.delete("/v1/projects/default")
    assert (kept.status_code, "cannot be deleted" in kept.json()["detail"]) == (409, True)


@pytest.mark.parametrize("project", ["Vision", "../etc", "", "-x", "a" * 40, "a b", "a/b"])
def test_a_project_is_named_by_a_plain_word(shared_api: RunningApi, project: str) -> None:
    response = shared_api.client.post("/v1/projects", json={"id": project})
    assert response.status_code == 422
    assert [e["field"] for e in response.json()["errors"]] == ["id"]


def test_an_admin_of_a_project_looks_after_that_one_alone(api: RunningApi) -> None:
    theirs = api.with_token("admin", project="theirs")
    ours = api.with_token("admin", project="ours")
    assert [p["id"] for p in theirs.get("/v1/projects").json()["items"]] == ["theirs"]
    assert theirs.get("/v1/projects/theirs").status_code == 200
    assert theirs.get("/v1/projects/ours").status_code == 404
    for method, path in (("POST", "/v1/projects"), ("DELETE", "/v1/projects/theirs")):
        refused = theirs.request(method, path, json={"id": "more"} if method == "POST" else None)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:bantam:problem:other-project")
    assert theirs.get("/metrics").status_code == 403

    made = theirs.post("/v1/tokens", json={"name": "ci"}).json()
    assert made["project"] == "theirs"
    assert {t["project"] for t in theirs.get("/v1/tokens").json()["items"]} == {"theirs"}
    assert {t["project"] for t in api.client.get("/v1/tokens").json()["items"]} == {"theirs", "ours"}
    assert theirs.post("/v1/tokens", json={"name": "ci", "project": "default"}).status_code == 422
    assert ours.delete(f"/v1/tokens/{made['id']}").status_code == 404
    assert ours.get(f"/v1/tokens/{made['id']}").status_code == 404
    assert api.client.delete(f"/v1/tokens/{made['id']}").status_code == 204

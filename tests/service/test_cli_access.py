from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.client import Client
from service.client_errors import ServiceProblem
from tests.service.api import RunningApi


@pytest.fixture
def bantam(sqlite_api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("BANTAM_URL", sqlite_api.url)
    monkeypatch.setenv("BANTAM_DATA_DIR", str(sqlite_api.settings.data_dir))
    monkeypatch.delenv("BANTAM_TOKEN", raising=False)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})

    return run


def test_a_token_is_printed_alone_used_listed_and_revoked(bantam: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no tokens but the one in the data folder" in bantam("token", "list").stdout
    made = bantam("token", "create", "ci", "--scope", "submit", "--days", "7")
    assert made.exit_code == 0, made.output
    text = made.stdout.strip()
    token_id = text.split("_")[1]
    assert text.startswith("bantam_t")
    assert "Keep it now" in made.stderr
    assert text not in made.stderr

    listed = bantam("token", "list").stdout
    assert token_id in listed
    assert "read, submit" in listed
    assert text not in listed
    monkeypatch.setenv("BANTAM_TOKEN", text)
    assert bantam("jobs").exit_code == 0
    refused = bantam("token", "list")
    assert refused.exit_code == 2
    assert "needs the scope `admin`" in refused.stderr
    monkeypatch.delenv("BANTAM_TOKEN")
    assert f"token {token_id} is revoked" in bantam("token", "revoke", token_id).stdout
    assert bantam("token", "revoke", token_id).exit_code == 2
    monkeypatch.setenv("BANTAM_TOKEN", text)
    assert bantam("jobs").exit_code == 2


def test_projects_and_what_was_done_in_them(bantam: Any, sqlite_api: RunningApi) -> None:
    assert "bantam token create NAME --project vision" in bantam("project", "create", "vision", "--name", "V").stdout
    assert [p["id"] for p in json.loads(bantam("project", "list", "--json").stdout)] == ["vision", "default"]
    assert "vision" in bantam("project", "list").stdout
    made = json.loads(bantam("token", "create", "ci", "--project", "vision", "--never-ends", "--json").stdout)
    assert (made["project"], made["expires_at"]) == ("vision", None)
    rows = json.loads(bantam("audit", "--json").stdout)
    assert [r["object"] for r in rows] == [f"/v1/tokens/{made['id']}", "/v1/projects/vision"]
    shown = bantam("audit", "--limit", "1").stdout
    assert f"POST /v1/tokens/{made['id']}" in shown
    assert "done (201)" in shown
    assert "/v1/projects/vision" not in shown
    assert "nothing was changed yet" in bantam("audit", "--by", made["id"]).stdout
    assert "project vision is deleted" in bantam("project", "delete", "vision").stdout


def test_delete_takes_ids_of_all_kinds(bantam: Any, sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    spec = sqlite_api.spec()
    refused = bantam("delete", spec["model"])
    assert refused.exit_code == 2
    assert f"is used by job {job_id}" in refused.stderr
    bantam("cancel", job_id)
    done = bantam("delete", job_id, spec["model"], spec["data"]["train"])
    assert done.exit_code == 0, done.output
    assert done.stdout.count("is deleted") == 3
    assert sqlite_api.client.get("/v1/models").json()["items"] == []
    assert "begin with m, d or j" in bantam("delete", "x1").stderr


def test_the_client_follows_pages_and_says_who_it_is(sqlite_api: RunningApi) -> None:
    with Client(sqlite_api.url, sqlite_api.token) as client:
        assert client.session()["id"] == "root"
        job_id = client.submit(sqlite_api.spec(), idempotency_key="k")["id"]
        assert client.submit(sqlite_api.spec(), idempotency_key="k")["id"] == job_id
        for _ in range(210):
            client.cancel(job_id)
        assert len(list(client.audit())) == 212
        assert len(list(client.audit(object=f"/v1/jobs/{job_id}"))) == 2
        keyed = [client.create_token("ci", idempotency_key="t") for _ in range(2)]
        assert keyed[0]["id"] == keyed[1]["id"]
        assert [t["id"] for t in client.tokens()] == [keyed[0]["id"]]
        client.delete_job(job_id)
        with pytest.raises(ServiceProblem, match="does not exist"):
            client.delete_job(job_id)

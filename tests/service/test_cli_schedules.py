"""`bantam schedule` and `bantam webhook` against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from tests.service.api import RunningApi


@pytest.fixture
def bantam(sqlite_api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("BANTAM_URL", sqlite_api.url)
    monkeypatch.setenv("BANTAM_DATA_DIR", str(sqlite_api.settings.data_dir))
    monkeypatch.delenv("BANTAM_TOKEN", raising=False)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})

    return run


def test_a_schedule_by_name_with_policies_and_its_history(bantam: Any, sqlite_api: RunningApi, tmp_path: Path) -> None:
    sqlite_api.spec()
    job = {**sqlite_api.spec(), "model": "team/net@latest"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    refused = bantam("schedule", "create", "nightly", "0 2 * * *", str(tmp_path / "job.json"))
    assert refused.exit_code == 2
    assert "team/net" in refused.output
    sqlite_api.upload("models", b"a model that the tests accept", "team/net")
    made = bantam(
        *("schedule", "create", "nightly", "0 2 * * *", str(tmp_path / "job.json"), "--json"),
        *("--missed", "run_all", "--overlap", "queue", "--no-warm-start"),
    )
    assert made.exit_code == 0, made.output
    schedule = json.loads(made.stdout)
    assert (schedule["missed"], schedule["overlap"], schedule["warm_start"]) == ("run_all", "queue", False)
    assert schedule["job"]["model"] == "team/net@latest"
    assert "no tick yet" in bantam("schedule", "runs", schedule["id"]).stdout
    sqlite_api.client.patch(f"/v1/schedules/{schedule['id']}", json={"job": sqlite_api.spec()})
    assert bantam("schedule", "run", schedule["id"]).exit_code == 0
    shown = bantam("schedule", "runs", schedule["id"])
    assert "submitted" in shown.stdout and "queued" in shown.stdout and "run by hand" in shown.stdout
    (row,) = json.loads(bantam("schedule", "runs", schedule["id"], "--json").stdout)
    assert row["decision"] == "submitted"


def test_a_webhook_from_its_secret_to_its_end(bantam: Any) -> None:
    assert "no webhooks" in bantam("webhook", "list").stdout
    made = bantam("webhook", "create", "https://example.org/hook", "--event", "failed", "--event", "regression")
    assert made.exit_code == 0, made.output
    assert made.stdout.strip().startswith("whsec_")
    assert len(made.stdout.split()) == 1, "the secret alone"
    listed = bantam("webhook", "list").stdout
    assert "failed, regression" in listed and "all jobs" in listed and "whsec_" not in listed
    (row,) = json.loads(bantam("webhook", "list", "--json").stdout)
    assert bantam("webhook", "deliveries", row["id"]).stdout.strip() == "no event yet"
    assert bantam("webhook", "test", row["id"]).exit_code == 0
    assert "pending" in bantam("webhook", "deliveries", row["id"]).stdout
    assert bantam("webhook", "disable", row["id"]).exit_code == 0
    assert bantam("webhook", "test", row["id"]).exit_code == 2
    assert bantam("webhook", "enable", row["id"]).exit_code == 0
    assert bantam("webhook", "delete", row["id"]).exit_code == 0
    assert json.loads(bantam("webhook", "list", "--json").stdout) == []
    refused = bantam("webhook", "create", "http://127.0.0.1/")
    assert refused.exit_code == 2
    assert "BANTAM_WEBHOOK_ALLOW_PRIVATE" in refused.output

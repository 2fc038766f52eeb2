"""The command line against a real server: what it prints, and with which status it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.cli_options import console
from tests.service import sample_job, seeded
from tests.service.api import DATASET_BYTES, MODEL_BYTES, RunningApi


@pytest.fixture
def bantam(sqlite_api: RunningApi, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command against the server; the token is read from its data folder as on a real machine."""
    monkeypatch.setenv("BANTAM_URL", sqlite_api.url)
    monkeypatch.setenv("BANTAM_DATA_DIR", str(sqlite_api.settings.data_dir))
    monkeypatch.delenv("BANTAM_TOKEN", raising=False)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})

    return run


def finished(api: RunningApi, **change: Any) -> str:
    return seeded.add_finished(api.database, api.settings.data_dir, **change)


@pytest.fixture
def job_folder(tmp_path: Path) -> Path:
    """job.json beside the files that it names."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "net.pt2").write_bytes(MODEL_BYTES)
    (folder / "rows.npz").write_bytes(DATASET_BYTES)
    job = {
        "name": "from a file",
        "model": "net.pt2",
        "data": {"train": "rows.npz", "inputs": ["x"], "target": "label"},
        "budget": {"latency_ratio": 0.5},
    }
    (folder / "job.json").write_text(json.dumps(job))
    return folder


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'fastapi', 'sqlalchemy', 'optuna', 'ray', 'onnxruntime', 'matplotlib', 'sklearn'}"
    code = f"import sys, service.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_submit_uploads_the_files_it_names(bantam: Any, sqlite_api: RunningApi, job_folder: Path) -> None:
    done = bantam("submit", str(job_folder / "job.json"), "--json")
    assert done.exit_code == 0, done.output
    job = json.loads(done.stdout)
    assert job["state"] == "queued"
    models = sqlite_api.client.get("/v1/models").json()["items"]
    assert [m["id"] for m in models] == [job["spec"]["model"]]
    assert models[0]["name"] == "net"


def test_submit_reads_yaml(bantam: Any, job_folder: Path) -> None:
    text = "model: net.pt2\ndata: {train: rows.npz, inputs: [x], target: label}\nbudget: {size_ratio: 0.5}\n"
    (job_folder / "job.yaml").write_text(text)
    done = bantam("submit", str(job_folder / "job.yaml"))
    assert done.exit_code == 0, done.output
    assert "follow it with: bantam watch" in done.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "job.json:1:2"),
        ("[]", "holds a list"),
        ('{"model": "lost.pt2"}', "model='lost.pt2': no such file"),
        ('{"model": "m", "data": {"train": "a/b"}}', "data.train='a/b': no such file"),
    ],
)
def test_a_bad_job_file_is_explained(bantam: Any, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "job.json").write_text(content)
    done = bantam("submit", str(tmp_path / "job.json"))
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_refused_job_names_its_field(bantam: Any, job_folder: Path) -> None:
    job = json.loads((job_folder / "job.json").read_text())
    job["data"]["target"] = "lable"
    (job_folder / "job.json").write_text(json.dumps(job))
    done = bantam("submit", str(job_folder / "job.json"))
    assert done.exit_code == 2
    assert "data.target" in done.stderr
    assert "'label'" in done.stderr


def test_jobs_lists_and_prints_json(bantam: Any, sqlite_api: RunningApi) -> None:
    assert "no jobs yet" in bantam("jobs").stdout
    job_id = finished(sqlite_api)
    shown = bantam("jobs").stdout
    assert job_id in shown
    assert "budget met" in shown
    assert "0.408×" in shown
    assert [j["id"] for j in json.loads(bantam("jobs", "--json").stdout)] == [job_id]


def test_ids_are_whole_on_a_narrow_terminal(
    bantam: Any, sqlite_api: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = finished(sqlite_api, name="a name that is much too long for such a terminal " * 2)
    monkeypatch.setattr(console, "_width", 80)
    assert job_id in bantam("jobs").stdout


def test_watch_ends_with_the_comparison(bantam: Any, sqlite_api: RunningApi) -> None:
    finished(sqlite_api)
    done = bantam("watch", "last", "--require-feasible")
    assert done.exit_code == 0, done.output
    assert "0.8655" in done.stdout
    assert "813.0 ms" not in done.stdout
    assert "0.813 ms" in done.stdout


def test_a_nearest_miss_fails_only_on_request(bantam: Any, sqlite_api: RunningApi) -> None:
    _, ledger = seeded.add_running(sqlite_api.database, sqlite_api.settings.data_dir, sample_job.trials(5))
    ledger.finish("succeeded", outcome="nearest_miss", reason="fixed cost of the runtime", report={})
    assert bantam("watch").exit_code == 0
    done = bantam("watch", "--require-feasible")
    assert done.exit_code == 1
    assert "fixed cost of the runtime" in done.stdout


def test_a_failed_job_exits_with_1(bantam: Any, sqlite_api: RunningApi) -> None:
    seeded.add_job(sqlite_api.database)
    ledger = seeded.coordinator(sqlite_api.database, sqlite_api.settings.data_dir)
    ledger.finish("failed", outcome=None, reason="no [bold]luck[/bold]", report=None)
    done = bantam("watch")
    assert done.exit_code == 1
    assert "no [bold]luck[/bold]" in done.stdout  # what a service says is text, not markup


def test_best_shows_and_fetches(bantam: Any, sqlite_api: RunningApi, tmp_path: Path) -> None:
    finished(sqlite_api)
    winner, report = tmp_path / "winner.onnx", tmp_path / "report.html"
    done = bantam("best", "--download", str(winner), "--report", str(report), "--require-feasible")
    assert done.exit_code == 0, done.output
    assert "trial 8" in done.stdout
    assert "pruned 4 groups" in done.stdout
    assert winner.read_bytes() == seeded.WINNER_BYTES
    assert report.read_text().startswith("<!doctype html>")
    document = json.loads(bantam("best", "--json").stdout)
    assert document["trial"]["number"] == document["job"]["best"]["trial"] == 8


def test_best_of_a_young_job_says_what_to_do(bantam: Any, sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    done = bantam("best", job_id)
    assert done.exit_code == 2
    assert f"bantam watch {job_id}" in done.stderr


def test_pause_resume_cancel(bantam: Any, sqlite_api: RunningApi) -> None:
    job_id = sqlite_api.submit()
    assert f"job {job_id} is paused" in bantam("pause", job_id).stdout
    assert json.loads(bantam("resume", job_id, "--json").stdout)["state"] == "queued"
    assert f"job {job_id} is cancelled" in bantam("cancel", "last").stdout
    done = bantam("resume", job_id)
    assert done.exit_code == 2
    assert "409" in done.stderr
    assert f"job {job_id} is queued" in bantam("retry", job_id).stdout


def test_cancelling_a_running_job_says_that_it_will(bantam: Any, sqlite_api: RunningApi) -> None:
    job_id, _ = seeded.add_running(sqlite_api.database, sqlite_api.settings.data_dir, sample_job.trials(3))
    assert f"job {job_id} is running, will cancel" in bantam("cancel", job_id).stdout


def test_schedules(bantam: Any, job_folder: Path) -> None:
    done = bantam("schedule", "create", "nightly", "0 2 * * *", str(job_folder / "job.json"), "--json")
    assert done.exit_code == 0, done.output
    schedule = json.loads(done.stdout)["id"]
    listed = bantam("schedule", "list").stdout
    assert "nightly" in listed
    assert "02:00" in listed
    assert "is queued" in bantam("schedule", "run", schedule).stdout
    assert bantam("schedule", "delete", schedule).exit_code == 0
    assert "no schedules yet" in bantam("schedule", "list").stdout
    done = bantam("schedule", "create", "x", "whenever", str(job_folder / "job.json"))
    assert done.exit_code == 2
    assert "cron" in done.stderr


def test_nobody_answers(bantam: Any) -> None:
    done = bantam("jobs", "--url", "http://127.0.0.1:9")
    assert done.exit_code == 3
    assert "bantam serve" in done.stderr


def test_a_wrong_token(bantam: Any) -> None:
    done = bantam("jobs", "--token", "wrong")
    assert done.exit_code == 2
    assert "401" in done.stderr


def test_no_job_yet(bantam: Any) -> None:
    done = bantam("watch")
    assert done.exit_code == 2
    assert "bantam submit" in done.stderr


def test_check_refuses_what_is_no_model(bantam: Any, tmp_path: Path) -> None:
    assert "no such file" in bantam("check", str(tmp_path / "x.pt2")).stderr
    (tmp_path / "x.pt2").write_text("not an archive")
    done = bantam("check", str(tmp_path / "x.pt2"))
    assert done.exit_code == 2
    assert "x.pt2" in done.stderr


@pytest.mark.parametrize(
    ("command", "module", "settings"),
    [
        (["serve", "--port", "9000", "--workers", "2"], ["service.start", "serve"], {"PORT": "9000", "WORKERS": "2"}),
        (["api", "--host", "0.0.0.0"], ["service.start", "api"], {"HOST": "0.0.0.0"}),
        (["worker", "--data-dir", "/d"], ["service.worker"], {"DATA_DIR": "/d"}),
        (["scheduler", "--database-url", "sqlite:///x"], ["service.scheduler"], {"DATABASE_URL": "sqlite:///x"}),
        (["db", "upgrade"], ["service.start", "migrate"], {}),
        (["demo", "--output", "out", "--keep"], ["service.demo", "--output", "out", "--keep"], {}),
    ],
)
def test_processes_replace_the_command_line(
    monkeypatch: pytest.MonkeyPatch, command: list[str], module: list[str], settings: dict[str, str]
) -> None:
    became: dict[str, Any] = {}

    def execve(path: str, arguments: list[str], environment: dict[str, str]) -> None:
        became.update(arguments=arguments, environment=environment)

    monkeypatch.setattr(os, "execve", execve)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert became["arguments"][1:] == ["-m", *module]
    assert {k: became["environment"][f"BANTAM_{k}"] for k in settings} == settings


def test_wrong_settings_are_named() -> None:
    environment = {**os.environ, "BANTAM_PORT": "many"}
    done = subprocess.run(
        [sys.executable, "-m", "service.start", "api"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "BANTAM_PORT='many'" in done.stderr

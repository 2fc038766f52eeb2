"""Log lines: their form, their labels, and that no secret is among them, in threads, requests and child processes."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from compressors.recipe import Recipe
from search import logs
from search.evaluator_process import Bench
from search.local_executor import LocalExecutor
from search.work import GateWork, Work
from service.auth import ensure_token
from service.settings import Settings
from tests.conformance.executor import make_scripted
from tests.service.api import RunningApi

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What this process logs from now on, as it would write it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.JsonFormatter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(before)


def test_a_line_carries_labels_fields_and_traceback(lines: Lines) -> None:
    logger = logging.getLogger("bantam.test")
    with logs.bound(job_id="j1", nothing=None), logs.bound(trial=3):
        logger.info("scored %d rows", 7, extra={"fields": {"seconds": 0.5}})
        thread = Thread(target=logger.info, args=("elsewhere",))
        thread.start()
        thread.join()
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("oh")
    scored, elsewhere, broken = lines()
    assert scored.items() >= {"message": "scored 7 rows", "job_id": "j1", "trial": 3, "seconds": 0.5}.items()
    assert scored["level"] == "info" and scored["logger"] == "bantam.test" and scored["time"].endswith("+00:00")
    assert "job_id" not in elsewhere and "nothing" not in scored
    assert broken["exception"].endswith("ValueError: broken")
    assert "job_id" not in broken


def test_text_lines_show_the_labels_too() -> None:
    record = logging.LogRecord("bantam.x", logging.INFO, "", 0, "begins", None, None)
    with logs.bound(job_id="j1"):
        assert logs.TextFormatter().format(record).endswith("INFO    bantam.x: begins [job_id=j1]")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("bantam_root_abcDEF123456789012345_-", "abcDEF"),
        ("Authorization: Bearer s3cret.value", "s3cret"),
        ("authorization=basic dXNlcjpwYXNz", "dXNl"),
        ("postgresql+psycopg://user:hunter22@db/x and http://h:1/a@b", "hunter22"),
    ],
)
def test_secrets_are_blanked(text: str, secret: str) -> None:
    shown = logs.blanked(text)
    assert secret not in shown and logs.BLANK in shown


def test_what_is_hidden_is_blanked_in_json_as_well(lines: Lines) -> None:
    logs.hide('quo"ted-secret')
    logging.getLogger("x").info('it is quo"ted-secret')
    assert lines()[0]["message"] == f"it is {logs.BLANK}"


def test_each_request_leaves_one_line_with_the_id_of_its_answer(sqlite_api: RunningApi, lines: Lines) -> None:
    job_id = sqlite_api.submit()
    answer = sqlite_api.client.get(f"/v1/jobs/{job_id}?secret=query")
    sqlite_api.open.get("/v1/jobs", headers={"Authorization": "Bearer bantam_wrong_0123456789abcdef0123"})
    deadline = time.monotonic() + 5
    while len(found := [x for x in lines() if x["logger"] == "bantam.access"]) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    last, refused = found[-2:]
    assert last["request_id"] == answer.headers["X-Request-Id"]
    assert last["route"] == "/v1/jobs/{job_id}" and last["path"] == f"/v1/jobs/{job_id}"
    assert (last["status"], last["method"], last["bytes"]) == (200, "GET", len(answer.content))
    assert (last["project"], last["token"]) == ("default", "root")
    assert refused["status"] == 401 and "token" not in refused
    text = json.dumps([x for x in lines() if x["logger"].startswith("bantam")])
    assert sqlite_api.token not in text and "query" not in text and "0123456789abcdef0123" not in text


def test_a_defect_is_logged_with_the_id_that_its_caller_sees(
    sqlite_api: RunningApi, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = sqlite_api.submit()

    def broken(*_: object) -> None:
        raise RuntimeError(f"token {sqlite_api.token}")

    monkeypatch.setattr("service.routes.jobs.JobView.of", broken)
    answer = sqlite_api.client.get(f"/v1/jobs/{job_id}")
    assert answer.status_code == 500 and answer.json()["type"] == "urn:bantam:problem:internal"
    assert answer.headers["content-type"] == "application/problem+json"
    (defect,) = [x for x in lines() if "exception" in x]
    assert defect["request_id"] == answer.headers["X-Request-Id"]
    assert "RuntimeError" in defect["exception"] and sqlite_api.token not in json.dumps(lines())


def test_an_evaluator_logs_like_its_worker(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(logs.FORMAT_VARIABLE, "json")
    executor = LocalExecutor(Bench(make_scripted, (str(tmp_path),), {"job_id": "j7"}), slots=1)
    work: Work = GateWork(trial=4, recipe=Recipe(steps=()))
    executor.submit(work)
    while not executor.poll(1):
        pass
    executor.close()
    found = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert any(x.get("job_id") == "j7" and x.get("trial") == 4 and x["logger"] == "bantam.evaluator" for x in found)


def test_the_scheduler_logs_json_and_hides_the_database_password(sqlite_settings: Settings) -> None:
    """A whole process, its server's and libraries' lines included."""
    token = ensure_token(sqlite_settings.token_file)
    code = (
        "import logging; from service.processes import set_up_logging; from service.settings import Settings\n"
        "set_up_logging(Settings()); logging.getLogger('uvicorn.error').error('at %s', Settings().database)\n"
        "from search import logs; logs.set_up_like_parent(); logging.getLogger('a').warning('b')"
    )
    environment = {
        **os.environ,
        "BANTAM_LOG_FORMAT": "json",
        "BANTAM_DATABASE_URL": "postgresql://u:long%20password@h/d",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert first["logger"] == "uvicorn.error" and second["message"] == "b"
    assert "long" not in done.stderr and token not in done.stderr

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from service.serve import CannotServe, serve_api
from service.settings import Settings
from service.supervisor import Supervisor, pause_before_restart

SERVE = "from service.serve import serve; from service.settings import Settings; serve(Settings())"


def until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.05)


class Service:
    """`serve` as a process of its own, on a free port, with real children."""

    def __init__(self, folder: Path, **settings: str) -> None:
        variables = {"BANTAM_DATA_DIR": str(folder / "data"), "BANTAM_PORT": "0", **settings}
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.match(r"Bantam serves (http://127\.0\.0\.1:\d+) \(token in (.*)\)", line)
        assert found, line or self.process.communicate()
        self.url, self.token = found[1], Path(found[2]).read_text().strip()
        self.children = psutil.Process(self.process.pid).children

    def finish(self) -> str:
        _, errors = self.process.communicate(timeout=30)
        return errors


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    running: list[Service] = []

    def begin(**settings: str) -> Service:
        running.append(Service(tmp_path, **settings))
        return running[-1]

    yield begin
    for service in running:
        if service.process.poll() is None:
            service.process.kill()
            service.process.communicate()


@pytest.fixture
def own_logging() -> Iterator[None]:
    """`serve` sets up the whole process's logging; the tests' own comes back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_soon_and_stops_cleanly(start: Callable[..., Service], number: signal.Signals) -> None:
    service = start()
    assert httpx.get(f"{service.url}/readyz").status_code == 200
    headers = {"Authorization": f"Bearer {service.token}"}
    assert httpx.get(f"{service.url}/v1/jobs", headers=headers).json() == {"items": [], "next_cursor": None}
    with httpx.Client(base_url=service.url, headers=headers) as client:
        client.get("/v1/jobs")
        times = []
        for _ in range(10):
            began = time.perf_counter()
            client.get("/v1/jobs")
            times.append(time.perf_counter() - began)
    assert min(times) < 0.035, "answers wait for a delayed ACK: TCP_NODELAY is not set"
    until(lambda: len(service.children()) == 2)
    children = service.children(recursive=True)
    service.process.send_signal(number)
    asked = time.monotonic()
    errors = service.finish()
    assert service.process.returncode == 0, errors
    assert time.monotonic() - asked < 12
    assert "Traceback" not in errors
    assert [c for c in children if c.is_running() and c.status() != psutil.STATUS_ZOMBIE] == []


def test_children_die_with_a_killed_server(start: Callable[..., Service]) -> None:
    service = start(BANTAM_WORKERS="0")
    until(lambda: len(service.children()) == 1)
    (scheduler,) = service.children()
    until(lambda: "service.scheduler" in " ".join(scheduler.cmdline()))
    time.sleep(2)  # it asks for the signal once it has started
    service.process.kill()
    service.finish()
    until(lambda: not scheduler.is_running() or scheduler.status() == psutil.STATUS_ZOMBIE, 10)


def test_a_taken_port_is_one_clear_message(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-c", SERVE],
            env={**os.environ, "BANTAM_DATA_DIR": str(tmp_path / "data"), "BANTAM_PORT": port},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"cannot listen on 127.0.0.1:{port}" in last
    assert "BANTAM_PORT" in last


@pytest.mark.parametrize("url", ["postgresql://bantam:secret@127.0.0.1:1/bantam", "sqlite:////proc/no/bantam.sqlite3"])
@pytest.mark.usefixtures("own_logging")
def test_a_database_that_cannot_be_opened_is_one_clear_message(tmp_path: Path, url: str) -> None:
    settings = Settings(data_dir=tmp_path, port=0, database_url=url)
    with pytest.raises(CannotServe, match="cannot open the database") as refused:
        serve_api(settings)
    assert "BANTAM_DATABASE_URL" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_dead_child_is_started_again_and_all_are_stopped(tmp_path: Path) -> None:
    journal = tmp_path / "starts"
    code = f"import time; open({str(journal)!r}, 'a').write('x'); time.sleep(60)"
    supervisor = Supervisor({"child": [sys.executable, "-c", code]}, {}, shutdown_s=5)
    supervisor.start()
    try:
        until(lambda: journal.exists() and supervisor.pids())
        first = supervisor.pids()["child"]
        os.kill(first, signal.SIGKILL)
        until(lambda: journal.read_text() == "xx")
        second = supervisor.pids()["child"]
        assert second != first
    finally:
        supervisor.join()
    assert not psutil.pid_exists(second)


def test_a_child_that_ignores_the_signal_is_killed_with_its_own_children(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        f"open({str(ready)!r}, 'w').write(str(p.pid)); time.sleep(60)"
    )
    supervisor = Supervisor({"child": [sys.executable, "-c", code]}, {}, shutdown_s=0.5)
    supervisor.start()
    until(lambda: ready.exists() and ready.read_text())
    grandchild = psutil.Process(int(ready.read_text()))
    began = time.monotonic()
    supervisor.join()
    assert time.monotonic() - began < 5
    until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE, 5)


def test_pauses_before_a_restart_grow_to_a_limit() -> None:
    assert [pause_before_restart(n) for n in (1, 2, 3, 4, 20)] == [0.5, 1, 2, 4, 30]

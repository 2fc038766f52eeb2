"""Spawned processes of this machine, held against the contract; and what happens when the coordinator is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from search.evaluator_process import Bench
from search.local_executor import LocalExecutor
from tests.conformance.executor import ExecutorConformance, MakeExecutor

_COORDINATOR = """
import sys
from search.evaluator_process import Bench
from search.local_executor import LocalExecutor
from search.work import SensitivityWork
from tests.conformance.executor import make_scripted

if __name__ == "__main__":
    executor = LocalExecutor(Bench(make_scripted, (sys.argv[1],)), slots=1)
    executor.submit(SensitivityWork(part=-3, parts=1))
    executor.poll(60)
"""


@pytest.fixture
def make() -> Iterator[MakeExecutor]:
    made: list[LocalExecutor] = []

    def build(bench: Bench, slots: int) -> LocalExecutor:
        made.append(LocalExecutor(bench, slots=slots))
        return made[-1]

    yield build
    for executor in made:
        executor.close()


class TestLocalExecutor(ExecutorConformance):
    pass


def test_evaluators_die_with_a_killed_coordinator(tmp_path: Path) -> None:
    script, log = tmp_path / "coordinator.py", tmp_path / "log"
    script.write_text(_COORDINATOR)
    root = Path(__file__).parents[2]
    coordinator = subprocess.Popen(
        [sys.executable, str(script), str(log)], env={**os.environ, "PYTHONPATH": str(root)}, cwd=root
    )
    try:
        until = time.monotonic() + 30
        while (not log.exists() or not log.read_text()) and time.monotonic() < until:
            time.sleep(0.05)
        evaluator = psutil.Process(int(log.read_text()))
        os.kill(coordinator.pid, signal.SIGKILL)
        coordinator.wait()
        psutil.wait_procs([evaluator], timeout=5)
        assert not evaluator.is_running() or evaluator.status() == psutil.STATUS_ZOMBIE
    finally:
        coordinator.kill()
        coordinator.wait()

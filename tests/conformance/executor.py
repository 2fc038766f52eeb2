"""What every executor must do; an implementation adds a fixture `executor`, not tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from search.evaluator_process import Bench
from search.executor import Executor
from search.records import Stage
from search.work import Failed, Profiled, ProfileWork, Result, Sensed, SensitivityWork, Work
from tests.search.simulation import network

MakeExecutor = Callable[[Bench, int], Executor]


def make_scripted(log: str, *, threads: int) -> Callable[[Work], Result]:
    """Works that say in their numbers what the process running them should do."""

    def evaluate(work: Work) -> Result:
        stage = Stage(name=str(os.getpid()), seconds=float(threads))
        match work:
            case ProfileWork():
                return Profiled(profile=network(), stage=stage)
            case SensitivityWork(part=-1):
                raise ValueError("as told")
            case SensitivityWork(part=-2):
                Path(log).write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            case SensitivityWork(part=-3):
                Path(log).write_text(str(os.getpid()))
                time.sleep(60)
            case SensitivityWork(part=part):
                time.sleep(part / 1000)
                return Sensed(part=part, entries=(), stage=stage)
        raise AssertionError(work)

    return evaluate


def _wait(executor: Executor, count: int, seconds: float = 30.0) -> list[tuple[Work, Result]]:
    found: list[tuple[Work, Result]] = []
    until = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < until:
        found += executor.poll(0.2)
    assert len(found) == count
    return found


class ExecutorConformance:
    """Subclasses give `make(bench, slots)`; it must close what it made."""

    def test_every_work_comes_back_once(self, make: MakeExecutor, tmp_path: Path) -> None:
        executor = make(Bench(make_scripted, (str(tmp_path / "log"),)), 2)
        waiting = [SensitivityWork(part=n, parts=99) for n in range(12)]
        expected = list(waiting)
        found: list[tuple[Work, Result]] = []
        while len(found) < len(expected):
            while executor.free and waiting:
                executor.submit(waiting.pop(0))
            found += executor.poll(1.0)
        for work, result in found:
            assert isinstance(work, SensitivityWork)
            assert isinstance(result, Sensed)
            assert result.part == work.part
        assert sorted(id(w) for w, _ in found) == sorted(id(w) for w in expected)
        assert executor.free == executor.slots == 2

    def test_slots_are_other_processes_side_by_side(self, make: MakeExecutor, tmp_path: Path) -> None:
        executor = make(Bench(make_scripted, (str(tmp_path / "log"),)), 2)
        for _ in range(2):
            executor.submit(SensitivityWork(part=300, parts=1))
        assert executor.free == 0
        workers = {r.stage.name for _, r in _wait(executor, 2) if isinstance(r, Sensed)}
        assert len(workers) == 2
        assert str(os.getpid()) not in workers

    def test_an_exception_is_a_result(self, make: MakeExecutor, tmp_path: Path) -> None:
        executor = make(Bench(make_scripted, (str(tmp_path / "log"),)), 1)
        executor.submit(SensitivityWork(part=-1, parts=1))
        [(_, result)] = _wait(executor, 1)
        assert isinstance(result, Failed)
        assert "ValueError: as told" in result.reason
        assert not result.retry

    def test_a_killed_process_is_replaced(self, make: MakeExecutor, tmp_path: Path) -> None:
        executor = make(Bench(make_scripted, (str(tmp_path / "log"),)), 1)
        executor.submit(SensitivityWork(part=-2, parts=1))
        [(_, result)] = _wait(executor, 1)
        assert isinstance(result, Failed)
        assert result.retry
        assert "signal 9" in result.reason
        executor.submit(SensitivityWork(part=1, parts=1))
        [(_, again)] = _wait(executor, 1)
        assert isinstance(again, Sensed)

    def test_an_aborted_work_comes_back_as_failed(self, make: MakeExecutor, tmp_path: Path) -> None:
        log = tmp_path / "log"
        executor = make(Bench(make_scripted, (str(log),)), 1)
        hanging = SensitivityWork(part=-3, parts=1)
        executor.submit(hanging)
        while not log.exists() or not log.read_text():
            executor.poll(0.1)
        executor.abort(hanging)
        [(work, result)] = _wait(executor, 1)
        assert work is hanging
        assert isinstance(result, Failed)
        assert result.retry
        executor.abort(hanging)
        assert executor.free == 1

    def test_close_ends_running_works(self, make: MakeExecutor, tmp_path: Path) -> None:
        log = tmp_path / "log"
        executor = make(Bench(make_scripted, (str(log),)), 1)
        executor.submit(SensitivityWork(part=-3, parts=1))
        while not log.exists() or not log.read_text():
            executor.poll(0.1)
        process = psutil.Process(int(log.read_text()))
        executor.close()
        assert not process.is_running()

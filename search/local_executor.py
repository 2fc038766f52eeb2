"""Runs works in spawned processes of this machine, one per slot. A process keeps its model and data between works."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from search.evaluator_process import Bench, serve
from search.work import Failed, Result, Work

STOP_SECONDS = 2.0  # between asking a process to end and killing it


@dataclass
class _Slot:
    process: SpawnProcess
    pipe: Connection
    work: Work | None = None


class LocalExecutor:
    """bench: what the processes build at their start; it is pickled to them.

    Threads: the machine's cores are shared evenly between the slots. Starting costs one import of torch per slot,
    side by side.
    """

    def __init__(self, bench: Bench, *, slots: int) -> None:
        self._bench = bench
        self._context = multiprocessing.get_context("spawn")
        self._threads = max(1, (os.cpu_count() or 1) // slots)
        self._slots = [self._start() for _ in range(slots)]
        self._lost: list[tuple[Work, Result]] = []

    @property
    def slots(self) -> int:
        return len(self._slots)

    @property
    def free(self) -> int:
        return sum(1 for slot in self._slots if slot.work is None)

    def submit(self, work: Work) -> None:
        slot = next(slot for slot in self._slots if slot.work is None)
        slot.work = work
        try:
            slot.pipe.send(work)
        except OSError:  # it died while idle
            self._lost.append((work, self._replace(slot)))

    def poll(self, timeout_s: float) -> list[tuple[Work, Result]]:
        if self._lost:
            lost, self._lost = self._lost, []
            return lost
        busy = {slot.pipe: slot for slot in self._slots if slot.work is not None}
        if not busy:
            time.sleep(timeout_s)
            return []
        finished: list[tuple[Work, Result]] = []
        for pipe in wait(list(busy), timeout_s):
            assert isinstance(pipe, Connection)
            slot = busy[pipe]
            work = slot.work
            assert work is not None
            try:
                result: Result = pipe.recv()
                slot.work = None
            except (EOFError, OSError):
                result = self._replace(slot)
            finished.append((work, result))
        return finished

    def abort(self, work: Work) -> None:
        for slot in self._slots:
            if slot.work is work:
                slot.process.kill()

    def close(self) -> None:
        for slot in self._slots:
            with contextlib.suppress(OSError):
                slot.pipe.close()
            slot.process.terminate()
        until = time.monotonic() + STOP_SECONDS
        for slot in self._slots:
            slot.process.join(max(0.0, until - time.monotonic()))
            if slot.process.is_alive():
                slot.process.kill()
                slot.process.join()
            slot.process.close()
        self._slots = []

    def _start(self) -> _Slot:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(theirs, self._bench, self._threads, os.getpid()), daemon=True, name="bantam-evaluator"
        )
        process.start()
        theirs.close()
        return _Slot(process, ours)

    def _replace(self, slot: _Slot) -> Failed:
        """A new process in the place of one that died; says how it died."""
        slot.process.join()
        code = slot.process.exitcode
        slot.process.close()
        slot.pipe.close()
        fresh = self._start()
        slot.process, slot.pipe, slot.work = fresh.process, fresh.pipe, None
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return Failed(reason=f"the process running it died ({how})", retry=True)

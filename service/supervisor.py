"""Keeps child processes running: starts them, restarts a dead one with growing pauses, stops them within seconds."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Thread

from service.processes import PARENT_VARIABLE

logger = logging.getLogger("bantam.serve")
_LOOK_S = 0.2
_LONGEST_PAUSE_S = 30.0
_STABLE_S = 60.0  # a child that lived this long starts afresh with the shortest pause


def pause_before_restart(failures: int) -> float:
    """Seconds: 0.5, 1, 2, 4 … 30."""
    return float(min(0.5 * 2.0 ** min(failures - 1, 10), _LONGEST_PAUSE_S))


@dataclass
class _Child:
    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    not_before: float = 0.0


class Supervisor:
    """commands: name -> argument list. The children's environment is ours plus `environment`.

    All of them are started, watched and stopped by one thread that lives as long as they do: the kernel's signal on a
    parent's death goes by the thread that started the child.
    """

    def __init__(
        self, commands: Mapping[str, Sequence[str]], environment: Mapping[str, str], *, shutdown_s: float
    ) -> None:
        self._children = [_Child(name, command) for name, command in commands.items()]
        self._environment = {**os.environ, **environment, PARENT_VARIABLE: str(os.getpid())}
        self._shutdown_s = shutdown_s
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="supervisor")

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Returns at once; safe in a signal handler."""
        self._stop.set()

    def join(self) -> None:
        self._stop.set()
        self._thread.join()

    def pids(self) -> dict[str, int]:
        return {c.name: c.process.pid for c in self._children if c.process is not None and c.process.poll() is None}

    def _watch(self) -> None:
        while not self._stop.is_set():
            for child in self._children:
                self._look_after(child, time.monotonic())
            self._stop.wait(_LOOK_S)
        self._end_all()

    def _look_after(self, child: _Child, now: float) -> None:
        if child.process is not None and (code := child.process.poll()) is not None:
            child.failures = 1 if now - child.started > _STABLE_S else child.failures + 1
            pause = pause_before_restart(child.failures)
            child.not_before = now + pause
            logger.warning("%s ended with status %d; starting it again in %.1f s", child.name, code, pause)
            _kill_group(child.process)  # what it may have left behind
            child.process = None
        if child.process is None and now >= child.not_before:
            # A session of its own: Ctrl-C reaches only us, and we stop the children in order.
            child.process = subprocess.Popen(
                child.command, env=self._environment, start_new_session=True, stdin=subprocess.DEVNULL
            )
            child.started = now

    def _end_all(self) -> None:
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self._shutdown_s
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("process %d did not stop within %.0f s; killing it", process.pid, self._shutdown_s)
            _kill_group(process)
            process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Ends the child's whole session; it may have started processes of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def python_module(module: str) -> list[str]:
    return [sys.executable, "-m", module]

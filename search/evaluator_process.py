"""The loop of one evaluator process: receives works, answers results, dies with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from compressors.errors import InvalidRecipe, UnsupportedModel
from search.work import Failed, Result, Work

_PR_SET_PDEATHSIG = 1

Evaluate = Callable[[Work], Result]


@dataclass(frozen=True)
class Bench:
    """make(*arguments) builds the function that evaluates works, inside the process. Both must pickle."""

    make: Callable[..., Evaluate]
    arguments: tuple[Any, ...]


def serve(pipe: Connection, bench: Bench, threads: int, parent: int) -> None:
    """Until the pipe closes. An exception becomes a Failed result: the process goes on."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's to handle
    signal.signal(signal.SIGTERM, _leave)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    evaluate = bench.make(*bench.arguments, threads=threads)
    with contextlib.suppress(EOFError, OSError):
        while True:
            work = pipe.recv()
            pipe.send(_answer(evaluate, work))
    signal.signal(signal.SIGTERM, _stay)  # it is leaving already


def _answer(evaluate: Evaluate, work: Work) -> Result:
    try:
        return evaluate(work)
    except Exception as error:
        return Failed(
            reason=f"{type(error).__name__}: {error}",
            retry=isinstance(error, OSError),
            refused=isinstance(error, InvalidRecipe | UnsupportedModel),
            detail={"traceback": traceback.format_exc(limit=-8)},
        )


def _leave(_signal: int, _frame: object) -> None:
    """Ends the process in order, so that what Python holds of the system is given back."""
    signal.signal(signal.SIGTERM, _stay)
    raise SystemExit(0)


def _stay(_signal: int, _frame: object) -> None:
    """Not SIG_IGN: Python complains of a signal that arrives while it is being set to that."""


def die_with_parent(parent: int) -> None:
    """Asks the kernel to kill this process when its parent ends, however it ends (Linux; elsewhere the pipe tells)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)

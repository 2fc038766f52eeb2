"""The loop of one evaluator process: receives works, answers results, dies with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from compressors.errors import InvalidRecipe, UnsupportedModel
from search import logs
from search.work import Failed, Result, Work

logger = logging.getLogger("bantam.evaluator")
_PR_SET_PDEATHSIG = 1

Evaluate = Callable[[Work], Result]


@dataclass(frozen=True)
class Bench:
    """make(*arguments) builds the function that evaluates works, inside the process. All must pickle.

    labels: of all log lines of the process.
    """

    make: Callable[..., Evaluate]
    arguments: tuple[Any, ...]
    labels: Mapping[str, Any] = field(default_factory=dict)


def serve(pipe: Connection, bench: Bench, threads: int, parent: int) -> None:
    """Until the pipe closes. An exception becomes a Failed result: the process goes on."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's to handle
    signal.signal(signal.SIGTERM, _leave)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    logs.set_up_like_parent()
    with logs.bound(**bench.labels):
        evaluate = bench.make(*bench.arguments, threads=threads)
        with contextlib.suppress(EOFError, OSError):
            while True:
                work = pipe.recv()
                with logs.bound(trial=getattr(work, "trial", None)):
                    answer = _answer(evaluate, work)
                pipe.send(answer)
    signal.signal(signal.SIGTERM, _stay)  # it is leaving already


def _answer(evaluate: Evaluate, work: Work) -> Result:
    name = type(work).__name__
    began = time.monotonic()
    try:
        result = evaluate(work)
        logger.debug("%s: done in %.3f s", name, time.monotonic() - began)
        return result
    except Exception as error:
        logger.info("%s: %s: %s", name, type(error).__name__, error)
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

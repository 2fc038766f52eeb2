"""What every process of the service does first: log, die with its parent, stop on signals."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from types import FrameType

from sqlalchemy.engine import make_url

from search import logs
from service.settings import Settings

PARENT_VARIABLE = "BANTAM_PARENT_PID"
_PR_SET_PDEATHSIG = 1


def set_up_logging(settings: Settings) -> None:
    """Also for the processes that this one starts: they read the form of their lines from the environment."""
    os.environ[logs.LEVEL_VARIABLE] = settings.log_level
    os.environ[logs.FORMAT_VARIABLE] = settings.log_format
    logs.set_up(settings.log_level, settings.log_format)
    logs.hide(make_url(settings.database).password)
    if not settings.access_log:
        logging.getLogger("bantam.access").setLevel(logging.WARNING)


class StopFlag:
    """Like threading.Event without its lock, on which a signal handler could block the very thread that it stopped."""

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def wait(self, seconds: float) -> bool:
        """Sleeps until the time is over or the flag is set; looks every 50 ms."""
        deadline = time.monotonic() + seconds
        while not self._set and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
        return self._set


def stop_on_signals() -> StopFlag:
    """A flag that SIGTERM and SIGINT set. A second signal ends the process at once."""
    stop = StopFlag()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop


def die_with_parent() -> None:
    """Asks Linux for a SIGTERM when the process named by BANTAM_PARENT_PID ends, however it ends. No-op elsewhere."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it ended before we asked
        sys.exit("the parent process is gone")

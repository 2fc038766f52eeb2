"""One measurement at a time per machine, and none while a training step runs beside it.

Two lock files in a folder that all processes share. `slot` is the lock itself: training holds it shared, a measurement
exclusively. `turnstile` keeps measurements from starving: everybody passes through it before asking for the slot, and a
waiting measurement stays inside it, so that trainers which finish a chunk queue up behind (Downey, The Little Book of
Semaphores, section 4.2.5, "no-starve readers-writers"). Locks are flock(2) locks: the kernel releases them with the
process, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class MeasurementSlot:
    """The slot of the machine, given by a folder on a local file system.

    What a thread runs inside one of its contexts may ask for the slot again: a context inside another is free, since
    waiting at the turnstile with the slot in hand would block a measurement that waits for the slot, and with it all.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._held = threading.local()
        self._turnstile = folder / "turnstile.lock"
        self._slot = folder / "slot.lock"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Waits for every holder to leave, keeps new ones out. For a measurement.

        Raises RuntimeError inside `shared`, where it could never be had.
        """
        if self._mode == "shared":
            raise RuntimeError("a measurement was begun inside a chunk of training; end the chunk first")
        if self._mode == "exclusive":
            yield
            return
        with _locked(self._turnstile, fcntl.LOCK_EX), _locked(self._slot, fcntl.LOCK_EX), self._holding("exclusive"):
            yield

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Runs beside other shared holders. For a chunk of training: hold it for fractions of a second, so that a
        measurement waits no longer than that.
        """
        if self._mode is not None:
            yield
            return
        with _locked(self._turnstile, fcntl.LOCK_EX):
            slot = _lock(self._slot, fcntl.LOCK_SH)
        try:
            with self._holding("shared"):
                yield
        finally:
            os.close(slot)

    @property
    def _mode(self) -> str | None:
        """What this thread holds: 'shared', 'exclusive' or nothing."""
        return getattr(self._held, "mode", None)

    @contextmanager
    def _holding(self, mode: str) -> Iterator[None]:
        self._held.mode = mode
        try:
            yield
        finally:
            self._held.mode = None


@contextmanager
def _locked(path: Path, mode: int) -> Iterator[None]:
    descriptor = _lock(path, mode)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, mode: int) -> int:
    """A fresh open file description with the lock on it; closing it releases the lock. Blocks until it is granted.

    The descriptor is not inherited by executed programs (O_CLOEXEC), so that no spawned child keeps the lock by
    accident; a child that is forked inside a context would.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor

"""Where the seconds of a trial go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from search.records import Stage


class StageClock:
    """Adds up the seconds of each stage."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._cached: dict[str, bool] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - began

    def found(self, name: str) -> None:
        """The stage's result was in the cache."""
        self._cached[name] = True
        self._seconds.setdefault(name, 0.0)

    @property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(
            Stage(name=n, seconds=round(s, 4), cached=self._cached.get(n, False)) for n, s in self._seconds.items()
        )

"""What the latency of a baseline is on this machine when it is quiet, known from earlier measurements.

A neighbour on the same physical core slows int8 by half and float32 by a fifth, for minutes at a time, so that no round
of one measurement is quiet and nothing inside it can tell. What was seen before can.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

TOLERANCE = 1.08  # a baseline slower than this multiple of the quiet one was measured under foreign load
KEPT = 64  # latest measurements
RANK = 10  # the quiet value is the lowest tenth of them: a rare fast moment must not make all others look loaded


class QuietBaseline:
    """One small file per model, target and machine; processes may race: the worst that happens is a lost note."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def known_ms(self) -> float | None:
        """None before the first measurement."""
        seen = sorted(self._seen())
        return seen[len(seen) // RANK] if seen else None

    def is_quiet(self, baseline_ms: float) -> bool:
        known = self.known_ms
        return known is None or baseline_ms <= known * TOLERANCE

    def note(self, baseline_ms: float) -> None:
        seen = [*self._seen(), baseline_ms][-KEPT:]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=self._path.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(seen, file)
        os.replace(partial, self._path)

    def _seen(self) -> list[float]:
        try:
            return [float(value) for value in json.loads(self._path.read_text())]
        except (OSError, ValueError, TypeError):
            return []

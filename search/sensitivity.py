"""How much the model suffers when one layer is compressed: layer x technique x level -> loss. Plain data.

Measured on calibration rows (never on validation) by the evaluator; one forward pass per entry, so the cost grows
linearly with layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

PRUNING_LEVELS = (0.75, 0.5, 0.25)  # shares of channels kept
QUANTIZATION_LEVELS = (8.0,)  # bits


@dataclass(frozen=True, kw_only=True)
class Entry:
    """loss: the task's divergence from the uncompressed model's outputs, mean KL in nats for classes.

    metric: on the same rows.
    """

    technique: Literal["structured_pruning", "quantization"]
    name: str
    level: float
    loss: float
    metric: float


class Sensitivity:
    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(sorted(entries, key=lambda e: (e.technique, e.name, -e.level)))
        self._curves: dict[str, tuple[np.ndarray[Any, np.dtype[np.float64]], ...]] = {}
        by_group: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.technique == "structured_pruning":
                by_group.setdefault(entry.name, []).append(entry)
        for name, points in by_group.items():
            removed = np.array([0.0, *(1 - p.level for p in points)])
            loss = np.maximum.accumulate(np.array([0.0, *(max(p.loss, 0.0) for p in points)]))
            slope = (loss[-1] - loss[-2]) / (removed[-1] - removed[-2])
            end = loss[-1] + 2 * slope * (1 - removed[-1]) + 1e-9  # past what was measured it only gets worse
            self._curves[name] = (np.append(removed, 1.0), np.append(loss, end))

    def pruning_loss(self, group: str, kept: float) -> float:
        """Loss (nats) at a kept share 0..1: monotone, linear between measured levels, 0 at 1. Unknown group: linear."""
        if group not in self._curves:
            return 1.0 - kept
        removed, loss = self._curves[group]
        return float(np.interp(1.0 - kept, removed, loss))

    def to_json(self) -> list[dict[str, Any]]:
        return [asdict(e) for e in self.entries]

    @classmethod
    def from_json(cls, document: Iterable[Mapping[str, Any]]) -> Sensitivity:
        return cls(Entry(**e) for e in document)

    def table(self) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
        """technique -> layer -> level -> {metric, loss}, as the report shows it."""
        table: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
        for e in self.entries:
            row = table.setdefault(e.technique, {}).setdefault(e.name, {})
            row[f"{e.level:g}"] = {"metric": e.metric, "loss": e.loss}
        return table

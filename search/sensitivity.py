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
ROUNDING_LEVELS = (4, 2)  # bits of a layer's weights
FULL_LEVEL = (8,)  # where fewer bits are no choice
UNKNOWN_BLOCK = 1.0  # loss of a block that was not measured

Technique = Literal["structured_pruning", "quantization", "depth_pruning"]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """name, level: of a group of channels, the share kept; of a layer, its weight bits; of a block, 0: it goes.

    loss: the task's divergence from the uncompressed model's outputs, mean KL in nats for classes. metric: on the same
    rows.
    """

    technique: Technique
    name: str
    level: float
    loss: float
    metric: float


class Sensitivity:
    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(sorted(entries, key=lambda e: (e.technique, e.name, -e.level)))
        found: dict[tuple[Technique, str], list[Entry]] = {}
        for entry in self.entries:
            found.setdefault((entry.technique, entry.name), []).append(entry)
        self._pruning: dict[str, tuple[Floats, Floats]] = {}
        self._rounding: dict[str, tuple[Floats, Floats]] = {}
        self._blocks: dict[str, float] = {}
        for (technique, name), points in found.items():
            if technique == "structured_pruning":
                self._pruning[name] = _pruning_curve(points)
            elif technique == "quantization":
                self._rounding[name] = _rounding_curve(points)
            else:
                self._blocks[name] = max(points[0].loss, 0.0)

    def pruning_loss(self, group: str, kept: float) -> float:
        """Loss (nats) at a kept share 0..1: monotone, linear between measured levels, 0 at 1. Unknown group: linear."""
        if group not in self._pruning:
            return 1.0 - kept
        removed, loss = self._pruning[group]
        return float(np.interp(1.0 - kept, removed, loss))

    def rounding_loss(self, layer: str, bits: int) -> float:
        """Loss (nats) of a layer's weights at these bits, over that at 8: monotone, log-linear between measured levels;
        beyond them each bit divides it by four, as it does the squared error of rounding. Unknown layer: that too."""
        if layer not in self._rounding:
            return float(1e-3 * (4.0 ** (8 - bits) - 1) / 4.0**4)
        widths, logarithms = self._rounding[layer]
        full, here = np.interp([8.0, float(bits)], widths, logarithms)
        return float(np.exp(here) - np.exp(full))

    def block_loss(self, block: str) -> float:
        """Loss (nats) of the model without a residual block."""
        return self._blocks.get(block, UNKNOWN_BLOCK)

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


def _pruning_curve(points: list[Entry]) -> tuple[Floats, Floats]:
    """(share removed, loss), ascending."""
    removed = np.array([0.0, *(1 - p.level for p in points)])
    loss = np.maximum.accumulate(np.array([0.0, *(max(p.loss, 0.0) for p in points)]))
    slope = (loss[-1] - loss[-2]) / (removed[-1] - removed[-2])
    end = loss[-1] + 2 * slope * (1 - removed[-1]) + 1e-9  # past what was measured it only gets worse
    return np.append(removed, 1.0), np.append(loss, end)


def _rounding_curve(points: list[Entry]) -> tuple[Floats, Floats]:
    """(bits, log of the loss), bits ascending."""
    widths = np.array([p.level for p in points])[::-1]  # entries come in falling order
    loss = np.log(np.maximum.accumulate(np.array([max(p.loss, 1e-7) for p in points])))[::-1]
    below, above = np.arange(1.0, widths[0]), np.arange(widths[-1] + 1, 9.0)
    return (
        np.concatenate([below, widths, above]),
        np.concatenate([loss[0] + np.log(4) * (widths[0] - below), loss, loss[-1] - np.log(4) * (above - widths[-1])]),
    )

"""Predicts a candidate's latency and size from its channel counts, corrected by what was measured.

Latency of a shape is read as a + b * W, where W is the work of its layers with channels rounded up to the block that
vector kernels use; bytes as c + d * parameters. The coefficients are fitted to the job's own measurements by least
squares with non-negative coefficients, the newest fit being used for the next candidate. Predictions only choose
where to measure: the measurement decides. Cost of one prediction: O(layers), of one changed group: O(its layers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from compressors.layer_costs import LayerShape

KERNEL_BLOCK = 16  # channels that one vector instruction covers; fewer cost about the same

Keep = Mapping[str, int]


def _rounded(channels: int) -> int:
    return -(-channels // KERNEL_BLOCK) * KERNEL_BLOCK


def layer_work(shape: LayerShape, keep: Keep) -> float:
    """Multiply-adds per sample with channels rounded up to KERNEL_BLOCK, the mean of that and the exact count."""
    exact: int = shape.macs(keep)
    out, into = shape.out_channels(keep), shape.in_channels(keep)
    stretch = _rounded(out) / max(out, 1)
    if not shape.depthwise:
        stretch *= _rounded(into) / max(into, 1)
    return exact * (1 + stretch) / 2


@dataclass(frozen=True)
class Point:
    """One measured shape: its work and parameters, relative to the uncompressed model, and its measured ratios."""

    work: float
    parameters: float
    latency_ratio: float
    size_ratio: float


@dataclass(frozen=True)
class CostModel:
    """ratio(latency) = latency[0] + latency[1] * work; ratio(size) = size[0] + size[1] * parameters."""

    latency: tuple[float, float]
    size: tuple[float, float]

    @classmethod
    def fit(cls, points: Sequence[Point]) -> CostModel:
        """One point: everything scales in proportion. More: non-negative least squares."""
        return cls(
            _line([(p.work, p.latency_ratio) for p in points]), _line([(p.parameters, p.size_ratio) for p in points])
        )

    def latency_ratio(self, work: float) -> float:
        return self.latency[0] + self.latency[1] * work

    def size_ratio(self, parameters: float) -> float:
        return self.size[0] + self.size[1] * parameters


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    x = np.array([p[0] for p in points])
    y = np.array([p[1] for p in points])
    if len(points) < 2 or np.ptp(x) < 1e-9:
        return 0.0, float(np.mean(y) / max(float(np.mean(x)), 1e-9))
    coefficients: npt.NDArray[np.float64] = nnls(np.stack([np.ones_like(x), x], axis=1), y)[0]
    return float(coefficients[0]), float(coefficients[1])


def _groups_of(shape: LayerShape) -> set[str]:
    return set(shape.out_groups) | set(shape.in_groups)


class ShapeCosts:
    """Work and parameters of a model's layers, relative to the uncompressed model, under any channel counts.

    fixed_parameters: those that no layer shape accounts for (they never change).
    """

    def __init__(self, shapes: Sequence[LayerShape], sizes: Keep) -> None:
        self._shapes = tuple(shapes)
        self.sizes = dict(sizes)
        self.layers_of: dict[str, tuple[int, ...]] = {
            name: tuple(i for i, s in enumerate(shapes) if name in s.out_groups or name in s.in_groups)
            for name in sizes
        }
        self.neighbours: dict[str, frozenset[str]] = {
            name: frozenset({name}.union(*(_groups_of(shapes[i]) for i in layers)))
            for name, layers in self.layers_of.items()
        }
        self._full_work = max(sum(layer_work(s, sizes) for s in shapes), 1.0)
        self._full_parameters = max(sum(s.parameters(sizes) for s in shapes), 1)

    def layer(self, index: int, keep: Keep) -> tuple[float, float]:
        """(work, parameters) of one layer as shares of the whole uncompressed model."""
        shape = self._shapes[index]
        return layer_work(shape, keep) / self._full_work, shape.parameters(keep) / self._full_parameters

    def total(self, keep: Keep) -> tuple[float, float]:
        """(work, parameters) of the whole model relative to the uncompressed one; 1 and 1 when all is kept."""
        parts = [self.layer(i, keep) for i in range(len(self._shapes))]
        return sum(p[0] for p in parts), sum(p[1] for p in parts)

    def point(self, keep: Keep, *, latency_ratio: float, size_ratio: float) -> Point:
        work, parameters = self.total(keep)
        return Point(work, parameters, latency_ratio, size_ratio)

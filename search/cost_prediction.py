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

KERNEL_BLOCK = 16  # output channels that a convolution kernel computes at least
INPUT_STEP = 4  # input channels that one integer dot product reads

Keep = Mapping[str, int]


def _outputs(channels: int) -> int:
    return max(KERNEL_BLOCK, _inputs(channels))


def _inputs(channels: int) -> int:
    return -(-channels // INPUT_STEP) * INPUT_STEP


def layer_cost(shape: LayerShape, keep: Keep, *, aligned: bool) -> tuple[float, float]:
    """(multiply-adds per sample, parameters) that a runtime really computes and stores.

    Convolution kernels work in blocks of channels; aligned: the int8 exporter stores the channels padded to them
    (`compressors.channel_alignment`), so that bytes do not fall below a block either.
    """
    macs, parameters = float(shape.macs(keep)), float(shape.parameters(keep))
    if not shape.kind.startswith("Conv") or shape.depthwise:
        return macs, parameters
    out, into = shape.out_channels(keep), shape.in_channels(keep)
    stretch = _outputs(out) / max(out, 1) * _inputs(into) / max(into, 1)
    return macs * stretch, parameters * stretch if aligned else parameters


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


class ShapeCosts:
    """Work and parameters of a model's layers, relative to the uncompressed model, under any channel counts.

    aligned: whether the file stores padded channels, see `layer_cost`.
    """

    def __init__(self, shapes: Sequence[LayerShape], sizes: Keep, *, aligned: bool) -> None:
        self._shapes = tuple(shapes)
        self._aligned = aligned
        self.sizes = dict(sizes)
        self.layers_of: dict[str, tuple[int, ...]] = {
            name: tuple(i for i, s in enumerate(shapes) if name in s.groups) for name in sizes
        }
        self.neighbours: dict[str, frozenset[str]] = {
            name: frozenset({name}.union(*(shapes[i].groups for i in layers)))
            for name, layers in self.layers_of.items()
        }
        full = [layer_cost(s, sizes, aligned=aligned) for s in shapes]
        self._full_work = max(sum(f[0] for f in full), 1.0)
        self._full_parameters = max(sum(f[1] for f in full), 1.0)

    def layer(self, index: int, keep: Keep) -> tuple[float, float]:
        """(work, parameters) of one layer as shares of the whole uncompressed model."""
        work, parameters = layer_cost(self._shapes[index], keep, aligned=self._aligned)
        return work / self._full_work, parameters / self._full_parameters

    def total(self, keep: Keep) -> tuple[float, float]:
        """(work, parameters) of the whole model relative to the uncompressed one; 1 and 1 when all is kept."""
        parts = [self.layer(i, keep) for i in range(len(self._shapes))]
        return sum(p[0] for p in parts), sum(p[1] for p in parts)

    def point(self, keep: Keep, *, latency_ratio: float, size_ratio: float) -> Point:
        work, parameters = self.total(keep)
        return Point(work, parameters, latency_ratio, size_ratio)

"""Predicts what a plan costs before it is built, corrected by what was measured.

Latency is a sum over layers: a price per call of a kernel, and for each class of layers (kind and resolution, on which
the efficiency of kernels depends) a price per unit of work, the work being counted with channels rounded up to the
block that vector kernels use. Bytes are a + b * stored bits. Prices are fitted to what was measured under recipes of
one template, by non-negative least squares, drawn to the prices that a single line would give as long as measurements
are few (a Gaussian prior, so ridge regression around it). Predictions only choose where to measure: the measurement
decides. Cost of one prediction: O(layers), of one changed decision: O(its layers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from compressors.layer_costs import LayerShape
from compressors.recipe import Recipe
from search.layer_plan import FULL_BITS, LayerPlan, plan_of
from search.profile import Profile

KERNEL_BLOCK = 16  # output channels that a convolution kernel computes at least
INPUT_STEP = 4  # input channels that one integer dot product reads
FLOAT_BITS = 32
NOISE = 0.02  # relative error of a measured ratio
FREEDOM = 0.6  # relative error that prices of the single line are held to have

Floats = npt.NDArray[np.float64]


def _outputs(channels: int) -> int:
    return max(KERNEL_BLOCK, _inputs(channels))


def _inputs(channels: int) -> int:
    return -(-channels // INPUT_STEP) * INPUT_STEP


def layer_cost(shape: LayerShape, keep: Mapping[str, int], *, aligned: bool) -> tuple[float, float]:
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


def _class(shape: LayerShape) -> str:
    """Layers of one class take the same time per unit of work, near enough."""
    form = "depthwise" if shape.depthwise else "pointwise" if shape.kernel == 1 else "dense"
    return f"{shape.kind} {form} at {shape.positions}"


@dataclass(frozen=True)
class Point:
    """One measured plan: its features and stored share (see `PlanCosts`), and its measured ratios."""

    features: tuple[float, ...]
    stored: float
    latency_ratio: float
    size_ratio: float


@dataclass(frozen=True)
class CostModel:
    """ratio(latency) = prices . (1, features); ratio(size) = size[0] + size[1] * stored."""

    prices: tuple[float, ...]
    size: tuple[float, float]

    @classmethod
    def fit(cls, points: Sequence[Point]) -> CostModel:
        """One point: everything scales in proportion. More: as the module says. Cost: O(points x features^2)."""
        features = np.array([p.features for p in points])
        latency = np.array([p.latency_ratio for p in points])
        stored = np.array([p.stored for p in points])
        return cls(_prices(features, latency), _line(stored, np.array([p.size_ratio for p in points])))

    def latency_ratio(self, features: Sequence[float] | Floats) -> float:
        return self.prices[0] + float(np.dot(self.prices[1:], features))

    def layer_latency(self, kind: int, calls: float, work: float) -> float:
        """Of one layer, as a part of the ratio; its class, calls and work as `PlanCosts.layer` gives them."""
        return self.prices[1] * calls + (self.prices[2 + kind] * work if kind >= 0 else 0.0)

    def size_ratio(self, stored: float) -> float:
        return self.size[0] + self.size[1] * stored


def _prices(features: Floats, latency: Floats) -> tuple[float, ...]:
    """For (1, calls, work of each class)."""
    calls, work = features[:, 0], features[:, 1:].sum(axis=1)
    intercept, slope = _line(work, latency)
    start = np.array([0.0, intercept, *([slope] * (features.shape[1] - 1))])  # overhead is taken to be that of calls
    if len(latency) < 2:
        return tuple(start)
    design = np.column_stack([np.ones(len(latency)), features]) / latency[:, None] / NOISE
    scale = np.array([1.0, max(float(calls.mean()), 1e-6), *np.maximum(features[:, 1:].mean(axis=0), 1e-6)])
    typical = float(latency.mean())
    width = (FREEDOM * start * scale / typical + NOISE) * typical / scale  # of the prior, per price
    prior = np.diag(1 / width)
    target = np.concatenate([np.full(len(latency), 1 / NOISE), prior @ start])
    found: Floats = nnls(np.vstack([design, prior]), target)[0]
    return tuple(float(price) for price in found)


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    if len(x) < 2 or np.ptp(x) < 1e-9:
        return 0.0, float(np.mean(y) / max(float(np.mean(x)), 1e-9))
    found: Floats = nnls(np.stack([np.ones_like(x), x], axis=1) / y[:, None], np.ones_like(y))[0]
    return float(found[0]), float(found[1])


class PlanCosts:
    """Features of plans for one model under one kind of recipe.

    Features: calls of kernels, then work by class of layers, each as a share of the uncompressed model's total; so the
    uncompressed model has calls 1 and works that sum up to 1. stored: bits of weights as a share of float32's.

    integers: whether weights are stored as integers, which folds batch norms, pads channels and lets bits matter.
    """

    def __init__(self, profile: Profile, *, integers: bool) -> None:
        self.profile = profile
        self._integers = integers
        self.shapes = profile.shapes
        sizes = profile.sizes
        kinds = [_class(s) for s in self.shapes]
        costs = [layer_cost(s, sizes, aligned=False) for s in self.shapes]
        self._total_work = max(sum(work for work, _ in costs), 1.0)
        self._total_parameters = max(sum(p for _, p in costs), 1.0)
        self._calls = max(sum(1 for work, _ in costs if work), 1)
        classes = sorted({kind for kind, (work, _) in zip(kinds, costs, strict=True) if work})
        self.classes = tuple(classes)
        self._class_of = [classes.index(kind) if kind in classes else -1 for kind in kinds]
        self._blocks_of = [
            frozenset(b for b, layers in profile.blocks.items() if s.layer in layers) for s in self.shapes
        ]
        self.touching: dict[tuple[str, str], tuple[int, ...]] = {}
        for name in sizes:
            self.touching["keep", name] = tuple(i for i, s in enumerate(self.shapes) if name in s.groups)
        for layer in profile.integer_layers:
            self.touching["bits", layer] = tuple(i for i, s in enumerate(self.shapes) if s.layer == layer)
        for block in profile.blocks:
            self.touching["drop", block] = tuple(i for i, on in enumerate(self._blocks_of) if block in on)

    @classmethod
    def under(cls, recipe: Recipe, profile: Profile) -> PlanCosts:
        return cls(profile, integers=recipe.quantization is not None)

    def layer(self, index: int, plan: LayerPlan) -> tuple[int, float, float, float]:
        """(class or -1, calls, work, stored) of one layer, as shares of the whole uncompressed model."""
        if plan.dropped and not plan.dropped.isdisjoint(self._blocks_of[index]):
            return -1, 0.0, 0.0, 0.0
        shape = self.shapes[index]
        work, parameters = layer_cost(shape, plan.keep, aligned=self._integers)
        bits = FLOAT_BITS
        if self._integers:
            bits = 0 if shape.kind.startswith("BatchNorm") else plan.bits.get(shape.layer, FULL_BITS)
        calls = 1.0 / self._calls if self._class_of[index] >= 0 else 0.0
        stored = parameters * bits / FLOAT_BITS / self._total_parameters
        return self._class_of[index], calls, work / self._total_work, stored

    def total(self, plan: LayerPlan) -> tuple[tuple[float, ...], float]:
        """(features, stored) of the whole model."""
        features = [0.0] * (1 + len(self.classes))
        whole = 0.0
        for index in range(len(self.shapes)):
            kind, calls, work, stored = self.layer(index, plan)
            if kind >= 0:
                features[0] += calls
                features[1 + kind] += work
            whole += stored
        return tuple(features), whole

    def measured(self, recipe: Recipe, *, latency_ratio: float, size_ratio: float) -> Point:
        """What was measured of a recipe of this kind."""
        return self.point(plan_of(recipe, self.profile), latency_ratio=latency_ratio, size_ratio=size_ratio)

    def point(self, plan: LayerPlan, *, latency_ratio: float, size_ratio: float) -> Point:
        features, stored = self.total(plan)
        return Point(features, stored, latency_ratio, size_ratio)

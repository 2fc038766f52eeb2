"""Knobs as numbers: reals and integers on [0, 1], choices by their index."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Knobs = Mapping[str, Any]
Reals = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Point:
    """unit: (numeric dimensions,), each in [0, 1]. choices: (categorical dimensions,) indices."""

    unit: Reals
    choices: Indices


class Encoding:
    """numeric, categorical: names in the order of a point's entries. sizes: choices of each categorical knob."""

    def __init__(self, dimensions: Mapping[str, BaseDistribution]) -> None:
        self.dimensions = dict(dimensions)
        self.numeric = [n for n, d in dimensions.items() if not isinstance(d, CategoricalDistribution)]
        self.categorical = [n for n, d in dimensions.items() if isinstance(d, CategoricalDistribution)]
        self.sizes = [len(d.choices) for d in dimensions.values() if isinstance(d, CategoricalDistribution)]

    def encode(self, knobs: Knobs) -> Point:
        unit = np.array([_to_unit(self.dimensions[n], knobs[n]) for n in self.numeric], dtype=np.float64)
        choices = [self._choices(n).index(knobs[n]) for n in self.categorical]
        return Point(unit, np.array(choices, dtype=np.int64))

    def decode(self, unit: Reals, choices: Indices) -> dict[str, Any]:
        """Knobs in the order of the dimensions. Entries of `unit` beyond [0, 1] are clipped."""
        values = {n: _from_unit(self.dimensions[n], float(u)) for n, u in zip(self.numeric, unit, strict=True)}
        values |= {n: self._choices(n)[int(i)] for n, i in zip(self.categorical, choices, strict=True)}
        return {name: values[name] for name in self.dimensions}

    def at(self, name: str, unit: float) -> Any:
        """The value of a knob at `unit` in [0, 1]: each value of it gets an equal share (of the logarithm)."""
        if name in self.categorical:
            choices = self._choices(name)
            return choices[min(int(unit * len(choices)), len(choices) - 1)]
        return _from_unit(self.dimensions[name], unit)

    def uniform(self, random: np.random.Generator) -> dict[str, Any]:
        return {name: self.at(name, random.random()) for name in self.dimensions}

    def is_legal(self, knobs: Knobs) -> bool:
        """Whether these are values of exactly this space's knobs."""
        return knobs.keys() == self.dimensions.keys() and all(
            _contains(d, knobs[n]) for n, d in self.dimensions.items()
        )

    @property
    def count(self) -> float:
        """Points of the space; infinite if a knob is real."""
        return math.prod((_count(d) for d in self.dimensions.values()), start=1.0)

    def every(self) -> Iterator[dict[str, Any]]:
        """All points of a finite space."""
        values = [_values(d) for d in self.dimensions.values()]
        return (dict(zip(self.dimensions, point, strict=True)) for point in itertools.product(*values))

    def _choices(self, name: str) -> tuple[Any, ...]:
        distribution = self.dimensions[name]
        assert isinstance(distribution, CategoricalDistribution)
        return tuple(distribution.choices)


def _to_unit(distribution: BaseDistribution, value: float) -> float:
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _edges(distribution)
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return 0.5 if high == low else (value - low) / (high - low)


def _from_unit(distribution: BaseDistribution, unit: float) -> float | int:
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _edges(distribution)
    unit = min(max(unit, 0.0), 1.0)
    value = math.exp(math.log(low) + unit * math.log(high / low)) if distribution.log else low + unit * (high - low)
    if distribution.step is not None:
        value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
    value = min(max(value, distribution.low), distribution.high)
    return round(value) if isinstance(distribution, IntDistribution) else float(value)


def _edges(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Half a step is added on each side, so that every value of a stepped knob gets an equal share."""
    half = 0.0 if distribution.step is None else distribution.step / 2
    return distribution.low - half, distribution.high + half


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kinds = int if isinstance(distribution, IntDistribution) else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and distribution.low <= value <= distribution.high


def _count(distribution: BaseDistribution) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None:
        return 1.0 if distribution.low == distribution.high else math.inf
    return round((distribution.high - distribution.low) / distribution.step) + 1


def _values(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    step = distribution.step or 1
    values = [distribution.low + i * step for i in range(int(_count(distribution)))]
    return [round(v) for v in values] if isinstance(distribution, IntDistribution) else [float(v) for v in values]

"""k-means of numbers on a line, where sorting makes it fast: clusters are intervals.

With prefix sums over the sorted numbers, a Lloyd step over n numbers and k clusters costs O(k log n), and the squared
error of any interval O(1). The best start is found by dynamic programming over intervals, O(k b^2) for b points (Wang &
Song 2011, The R Journal 3(2), Ckmeans.1d.dp); more numbers than b are first gathered into b groups.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from compressors.onnx_emission import Array

Initialization = Literal["optimal", "linear", "kmeans++"]
_ITERATIONS = 300
_BINS = 4096


class Line:
    """Sorted numbers with weights. values: any shape. weights: not negative, of the same shape; None: all 1."""

    def __init__(self, values: Array, weights: Array | None = None) -> None:
        flat = values.reshape(-1).astype(np.float64)
        order = np.argsort(flat, kind="stable")
        self.values = flat[order]
        given = np.ones(len(flat)) if weights is None else weights.reshape(-1).astype(np.float64)[order]
        # A cluster of numbers that do not matter still needs a centre.
        self.weights = given + 1e-12 * max(float(given.max(initial=0.0)), 1e-300)
        self._sums = [np.concatenate([[0.0], np.cumsum(self.weights * self.values**power)]) for power in range(3)]

    def __len__(self) -> int:
        return len(self.values)

    def centres(self, edges: Array) -> Array:
        """Weighted means of the intervals edges[i]..edges[i + 1], NaN where one is empty."""
        mass, moment = (np.diff(self._sums[power][edges]) for power in (0, 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            result: Array = moment / mass
        return np.where(np.diff(edges) > 0, result, np.nan)

    def errors(self, starts: Array, ends: Array) -> Array:
        """Weighted squared error of the intervals starts..ends around their means; broadcasts."""
        mass, moment, square = (sums[ends] - sums[starts] for sums in self._sums)
        with np.errstate(invalid="ignore", divide="ignore"):
            result = np.where(mass > 0, square - moment**2 / mass, 0.0)
        return np.maximum(result, 0.0)

    def grouped(self, count: int) -> Line:
        """At most `count` points, the means of runs of neighbours: most where an optimal quantiser has most centres.

        Their density is the cube root of the numbers' (Panter & Dite 1951, Proceedings of the IRE 39(1)); a quarter of
        the runs hold equally many numbers instead, in case that a few outliers stretch the range.
        """
        if len(self) <= count:
            return self
        ends = np.linspace(self.values[0], self.values[-1], _BINS + 1)
        density = np.diff(np.interp(ends, self.values, self._sums[0][1:]))
        measure = np.concatenate([[0.0], np.cumsum(np.cbrt(np.maximum(density, 0.0)))])
        quarter = count // 4
        borders = np.interp(np.linspace(0, measure[-1], count - quarter), measure, ends)
        evenly = np.round(np.linspace(0, len(self), quarter + 1)).astype(np.int64)
        edges = np.unique(np.concatenate([evenly, np.searchsorted(self.values, borders)]))
        return Line(self.centres(edges), np.diff(self._sums[0][edges]))


def kmeans(line: Line, k: int, initialization: Initialization = "optimal", seed: int = 0) -> Array:
    """At most k centres (float64, rising) with a small weighted squared error; as many as there are distinct numbers,
    if those are fewer.

    optimal: the least error if there are at most `dp_points(k)` numbers, else a start that is the best for groups.
    linear: evenly from the least to the largest number (Han et al. 2016, section 3.2). kmeans++: Arthur & Vassilvitskii
    2007, drawn with `seed`. All are improved by Lloyd's algorithm until nothing changes.
    """
    distinct = np.unique(line.values)
    if len(distinct) <= k:
        return distinct
    if initialization == "optimal":
        centres = _best_intervals(line.grouped(dp_points(k)), k)
    elif initialization == "linear":
        centres = np.linspace(line.values[0], line.values[-1], k)
    else:
        centres = _plus_plus(line, k, np.random.default_rng(seed))
    return _lloyd(line, centres)


def dp_points(k: int) -> int:
    """Points that the dynamic programme takes: it stays below about 0.3 s for 256 clusters, 0.1 s for 16."""
    return 1024 if k <= 32 else 512


def assign(values: Array, centres: Array) -> Array:
    """Index of the nearest centre (rising order) for each number; the upper one at equal distance."""
    middles = (centres[:-1].astype(np.float64) + centres[1:]) / 2
    return np.searchsorted(middles, values.astype(np.float64), side="right")


def error(line: Line, centres: Array) -> float:
    """Weighted sum of squared distances to the nearest centre."""
    nearest = centres[assign(line.values, centres)]
    return float((line.weights * (line.values - nearest) ** 2).sum())


def _lloyd(line: Line, centres: Array) -> Array:
    """Lloyd's algorithm; a cluster that loses all its numbers takes the middle of the worst one."""
    edges = np.zeros(0, dtype=np.int64)
    for _ in range(_ITERATIONS):
        middles = (centres[:-1] + centres[1:]) / 2
        found = np.concatenate([[0], np.searchsorted(line.values, middles, side="left"), [len(line)]])
        if np.array_equal(found, edges):
            break
        edges = found
        centres = line.centres(edges)
        empty = np.isnan(centres)
        if empty.any():
            centres = _refilled(line, edges, centres[~empty], int(empty.sum()))
            edges = np.zeros(0, dtype=np.int64)
    return centres


def _refilled(line: Line, edges: Array, centres: Array, missing: int) -> Array:
    """Splits the clusters of the largest errors in two."""
    filled = np.unique(edges)
    starts, ends = filled[:-1], filled[1:]
    errors = np.where(line.values[starts] < line.values[ends - 1], line.errors(starts, ends), -1.0)
    for worst in np.argsort(-errors, kind="stable")[:missing]:
        if errors[worst] < 0:
            break
        halves = line.values[starts[worst]], line.values[ends[worst] - 1]
        centres[worst] = (halves[0] + centres[worst]) / 2
        centres = np.append(centres, (halves[1] + centres[worst]) / 2)
    return np.unique(centres)


def _best_intervals(line: Line, k: int) -> Array:
    """Centres of the k intervals with the least error in all."""
    size = len(line)
    positions = np.arange(size + 1)
    costs = line.errors(positions[:, None], positions[None, :])
    costs[positions[:, None] >= positions[None, :]] = np.inf
    best = costs[0]
    choices = []
    for _ in range(k - 1):
        totals = best[:, None] + costs
        choice = totals.argmin(0)
        best = totals[choice, positions]
        choices.append(choice)
    edges = [size]
    for choice in reversed(choices):
        edges.append(int(choice[edges[-1]]))
    return line.centres(np.array([0, *reversed(edges)]))


def _plus_plus(line: Line, k: int, rng: np.random.Generator) -> Array:
    first = rng.choice(len(line), p=line.weights / line.weights.sum())
    centres = [line.values[first]]
    distance = (line.values - centres[0]) ** 2
    for _ in range(k - 1):
        chances = line.weights * distance
        total = chances.sum()
        if total <= 0:
            break
        centres.append(line.values[rng.choice(len(line), p=chances / total)])
        distance = np.minimum(distance, (line.values - centres[-1]) ** 2)
    return np.unique(centres)

"""How good a whole front is, as one number: the share of a box that its members dominate.

The box. Each candidate is a point (drop, latency, size), all to be minimised, relative to the uncompressed model:

    drop     (baseline's metric - metric) / allowed, where allowed is the budget's max_metric_drop or, without one,
             the whole of the baseline's metric; a metric above the baseline's counts as no loss (0)
    latency  measured latency / the baseline's, in the same rounds
    size     bytes of the file / the baseline's

The reference point is (1, 1, 1): all of the allowed loss, at the uncompressed model's latency and size; the ideal point
is (0, 0, 0). So the volume lies between 0 (nothing found that is both faster and smaller) and 1. Only feasible
candidates count, and a coordinate past the reference counts as being on it, that is, not at all.

The hypervolume is the "size of the space covered" of Zitzler & Thiele 1998 (PPSN V, LNCS 1498, section 3).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from search.records import Baseline, Trial
from search.spec import Budget

Point = tuple[float, float, float]


def hypervolume(points: Iterable[Point]) -> float:
    """Volume of the part of the unit cube that is dominated by `points` (minimised; reference point (1, 1, 1)).

    Exact. A sweep along the third coordinate over a staircase in the other two: Fonseca, Paquete & López-Ibáñez 2006
    (CEC, "An improved dimension-sweep algorithm for the hypervolume indicator"), section III. Cost: O(n log n)
    comparisons; each point enters the staircase once and leaves it at most once.
    """
    inside = sorted((p for p in points if max(p) < 1.0), key=lambda p: p[2])
    xs: list[float] = []  # ascending
    ys: list[float] = []  # descending
    volume = area = below = 0.0
    for x, y, z in ((max(p[0], 0.0), max(p[1], 0.0), max(p[2], 0.0)) for p in inside):
        volume += area * (z - below)
        below = z
        area += _insert(xs, ys, x, y)
    return volume + area * (1.0 - below)


def _insert(xs: list[float], ys: list[float], x: float, y: float) -> float:
    """Adds a step to the staircase; returns the area that it dominates in addition."""
    first = bisect_left(xs, x)
    height = ys[first - 1] if first else 1.0
    if y >= height or (first < len(xs) and xs[first] == x and ys[first] <= y):
        return 0.0
    gained, start, last = 0.0, x, first
    while last < len(xs) and ys[last] >= y:
        gained += (xs[last] - start) * (height - y)
        start, height = xs[last], ys[last]
        last += 1
    gained += ((xs[last] if last < len(xs) else 1.0) - start) * (height - y)
    xs[first:last], ys[first:last] = [x], [y]
    return gained


@dataclass(frozen=True)
class Box:
    """What a candidate is held against. allowed_drop: loss of metric at the reference point, > 0."""

    metric: float
    size_bytes: int
    allowed_drop: float

    @classmethod
    def of(cls, baseline: Baseline, budget: Budget) -> Box:
        """A budget that allows no loss at all, or none in particular, is read as: the whole metric may be lost."""
        allowed = budget.max_metric_drop or abs(baseline.metric) or 1.0
        return cls(baseline.metric, baseline.size_bytes, allowed)

    def point(self, trial: Trial) -> Point | None:
        """None unless the trial is feasible, measured and scored."""
        if not trial.feasible or trial.metric is None or trial.latency is None or trial.size_bytes is None:
            return None
        drop = max(0.0, self.metric - trial.metric) / self.allowed_drop
        return (drop, trial.latency.ratio, trial.size_bytes / self.size_bytes)

    def volume(self, trials: Iterable[Trial]) -> float:
        """Hypervolume of these trials, 0..1."""
        return hypervolume(point for point in map(self.point, trials) if point is not None)

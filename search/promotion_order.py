"""Which of the candidates that wait at a rung is tuned further first: what the job's objective asks for.

metric: the better metric. latency, size: the fastest or smallest of those that tuning can be expected to bring within
the allowed loss, and while none can, the one that is nearest to it. What tuning does to a loss is read off this job's
own candidates: the median of (loss after) / (loss at this rung) over those that went on from it; before there are any,
a loss is expected to stay. pareto: non-dominated ones first (Deb et al. 2002, NSGA-II), and of these the one furthest
from what has gone on already, so that the whole front is tuned and not one end of it (multi-objective asynchronous
successive halving, Schmucker et al. 2021, arXiv:2106.12639, with the distance in place of its epsilon-net).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from statistics import median

from search.front import dominates
from search.outranking import metric_at
from search.records import Baseline, Trial
from search.spec import Budget, Objective

TINY = 1e-6  # of a loss; nothing can be learnt from what became of less


class PromotionOrder:
    """Pure arithmetic on trials. Cost: O(trials log trials); for pareto O(waiting x trials)."""

    def __init__(self, objective: Objective, baseline: Baseline, budget: Budget) -> None:
        self._objective = objective
        self._metric = baseline.metric
        self._allowed = budget.max_metric_drop

    def of(self, waiting: Sequence[Trial], trials: Collection[Trial]) -> list[Trial]:
        """The waiting ones, scored, first to go on first. trials: all of the job."""
        if self._objective == "metric" or not waiting:
            return sorted(waiting, key=lambda t: (-(t.metric or 0.0), t.number))
        if self._objective == "pareto":
            return self._spread(waiting, trials)
        kept = {rung: self._kept_loss(rung, trials) for rung in {_rung(t) for t in waiting}}
        allowed = self._allowed or 0.0

        def key(trial: Trial) -> tuple[bool, float, float, int]:
            expected = self._loss(trial.metric or 0.0) * kept[_rung(trial)]
            beyond = max(0.0, expected - allowed)
            return beyond > 0, beyond, self._cost(trial), trial.number

        return sorted(waiting, key=key)

    def _kept_loss(self, rung: int, trials: Collection[Trial]) -> float:
        """What share of the loss at this rung is left after more tuning; 1 before any candidate has shown it."""
        shares = []
        for trial in trials:
            before = metric_at(trial, rung)
            if before is None or _rung(trial) <= rung or self._loss(before) <= TINY:
                continue
            shares.append(self._loss(trial.metric or 0.0) / self._loss(before))
        return min(1.0, median(shares)) if shares else 1.0

    def _loss(self, metric: float) -> float:
        return max(0.0, self._metric - metric)

    def _cost(self, trial: Trial) -> float:
        if self._objective == "size":
            return float(trial.size_bytes or 0)
        return trial.latency.ratio if trial.latency is not None else math.inf

    def _spread(self, waiting: Sequence[Trial], trials: Collection[Trial]) -> list[Trial]:
        points = {t.number: _point(t, t.metric) for t in waiting}
        went_on: list[tuple[float, ...]] = []
        for trial in trials:
            there = {metric_at(trial, rung) for rung in {_rung(t) for t in waiting} if _rung(trial) > rung}
            went_on += [_point(trial, metric) for metric in there if metric is not None]
        widths = [max(max(axis) - min(axis), 1e-9) for axis in zip(*points.values(), *went_on, strict=True)]

        def distance(point: tuple[float, ...]) -> float:
            return min(
                (sum(((a - b) / w) ** 2 for a, b, w in zip(point, o, widths, strict=True)) for o in went_on),
                default=0.0,
            )

        def key(trial: Trial) -> tuple[int, float, float, int]:
            point = points[trial.number]
            beaten_by = sum(dominates(other, point) for other in points.values())
            return beaten_by, -distance(point), -(trial.metric or 0.0), trial.number

        return sorted(waiting, key=key)


def _point(trial: Trial, metric: float | None) -> tuple[float, ...]:
    """Minimised; costs as logarithms, since half of it is as much worth anywhere."""
    latency = trial.latency.ratio if trial.latency is not None else 1.0
    return (-(metric or 0.0), math.log(max(latency, 1e-9)), math.log(max(trial.size_bytes or 1, 1)))


def _rung(trial: Trial) -> int:
    return -1 if trial.fidelity is None else trial.fidelity.rung

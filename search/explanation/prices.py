"""What one more millisecond or kilobyte would buy: measured along the front, and foretold beyond it.

The foretold price is a shadow price: the change of the least predicted loss per unit by which a limit is loosened
(Everett 1963, "Generalized Lagrange multiplier method", Operations Research 11). The solver gives the least sum of
single-layer losses (nats) at each limit; what a nat is worth in the metric is read off this job's own trials by least
squares through the origin. Both steps are predictions, and the error of the second is stated with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from compressors.recipe import Recipe
from search.explanation.cost_view import CostView
from search.feasibility import Limits
from search.outranking import metric_at
from search.profile import Profile
from search.records import Trial
from search.sensitivity import Sensitivity
from search.spec import JobSpec

STEPS = (0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5)  # of what the winner costs
NOTICEABLE = 0.02  # relative difference in cost; between closer ones the slope is noise
LEAST_PAIRS = 4  # trials that the worth of a nat is read off


@dataclass(frozen=True)
class _Axis:
    name: str
    unit: str
    cost: Callable[[Trial], float]  # in the unit


_AXES = (
    _Axis("latency", "ms", lambda t: t.latency.p50_ms if t.latency is not None else 0.0),
    _Axis("size", "kB", lambda t: (t.size_bytes or 0) / 1000),
)


def prices(
    winner: Trial,
    trials: Sequence[Trial],
    spec: JobSpec,
    profile: Profile,
    sensitivity: Sensitivity | None,
    costs: CostView,
) -> dict[str, Any]:
    """{latency, size, worth_of_a_nat}. Each axis: {unit, cost, measured, predicted}.

    measured: {cheaper, dearer}, the neighbours of the winner among all feasible trials along this axis (the best metric
    at noticeably less, and the cheapest at a better metric): {trial, cost, metric, per_unit}. predicted: [{cost, loss,
    metric_change}], at several limits around the winner's cost, the other cost being held at the budget's limit;
    metric_change against the prediction at the winner's own cost, None where no worth of a nat could be read off.
    worth_of_a_nat: {metric_per_nat, error, trials, rank_correlation} or None; error: median, in the metric.
    """
    worth = None if sensitivity is None else _worth(trials, profile, sensitivity, costs)
    rate = None if worth is None else float(worth["metric_per_nat"])
    return {
        **{
            axis.name: {
                "unit": axis.unit,
                "cost": round(axis.cost(winner), 6),
                "measured": _neighbours(axis, winner, trials),
                "predicted": _foretold(axis, winner, spec, profile, sensitivity, costs, rate),
            }
            for axis in _AXES
        },
        "worth_of_a_nat": worth,
    }


def _neighbours(axis: _Axis, winner: Trial, trials: Sequence[Trial]) -> dict[str, Any]:
    scored = [t for t in trials if t.feasible and t.metric is not None and t.latency is not None and t.size_bytes]
    here, metric = axis.cost(winner), winner.metric or 0.0
    cheaper = [t for t in scored if axis.cost(t) < here * (1 - NOTICEABLE) and (t.metric or 0.0) < metric]
    dearer = [t for t in scored if axis.cost(t) > here * (1 + NOTICEABLE) and (t.metric or 0.0) > metric]

    def row(other: Trial | None) -> dict[str, Any] | None:
        if other is None:
            return None
        there, change = axis.cost(other), (other.metric or 0.0) - metric
        return {
            "trial": other.number,
            "cost": round(there, 6),
            "metric": other.metric,
            "per_unit": round(change / (there - here), 6),
        }

    return {
        "cheaper": row(max(cheaper, key=lambda t: (t.metric or 0.0, -axis.cost(t)), default=None)),
        "dearer": row(min(dearer, key=lambda t: (axis.cost(t), -(t.metric or 0.0)), default=None)),
    }


def _foretold(
    axis: _Axis,
    winner: Trial,
    spec: JobSpec,
    profile: Profile,
    sensitivity: Sensitivity | None,
    costs: CostView,
    rate: float | None,
) -> list[dict[str, Any]]:
    if sensitivity is None or winner.latency is None or not winner.size_ratio:
        return []
    held, here = Limits.of(spec.budget, profile.baseline), axis.cost(winner)
    found = []
    for step in STEPS:
        if axis.name == "latency":
            limits = replace(held, latency_ratio=winner.latency.ratio * step)
        else:
            limits = replace(held, size_ratio=winner.size_ratio * step)
        plan = costs.solve(sensitivity, limits)
        if plan is not None:
            found.append((step, plan.harm))
    own = next((harm for step, harm in found if step == 1.0), None)
    if own is None:
        return []
    return [
        {
            "cost": round(here * step, 6),
            "loss": round(harm, 6),
            "metric_change": None if rate is None else round(rate * (own - harm), 6),
        }
        for step, harm in found
    ]


def _worth(
    trials: Sequence[Trial], profile: Profile, sensitivity: Sensitivity, costs: CostView
) -> dict[str, Any] | None:
    """Loss of metric per nat, over trials of the rung that most pruned trials have been tuned to."""
    pairs: dict[int, list[tuple[float, float]]] = {}
    for trial in trials:
        recipe = None if trial.recipe is None else Recipe.from_json(trial.recipe)
        if recipe is None or recipe.pruning is None:
            continue
        for rung in {s.rung for s in trial.scores if s.rung > 0}:
            metric = metric_at(trial, rung)
            assert metric is not None
            drop = profile.baseline.metric - metric
            pairs.setdefault(rung, []).append((costs.harm(sensitivity, recipe), drop))
    enough = [p for p in pairs.values() if len(p) >= LEAST_PAIRS]
    if not enough:
        return None
    chosen = max(enough, key=len)
    harm, drop = np.array(chosen).T
    if harm.max() <= 0 or np.ptp(harm) < 1e-9 or np.ptp(drop) < 1e-12:
        return None
    rate = max(0.0, float(harm @ drop / (harm @ harm)))
    return {
        "metric_per_nat": round(rate, 6),
        "error": round(float(median(np.abs(drop - rate * harm))), 6),
        "trials": len(chosen),
        "rank_correlation": round(float(spearmanr(harm, drop).statistic), 3),
    }

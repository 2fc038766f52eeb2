"""Which trial is best: by objective among the feasible, by distance from the budget among the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable

from search.feasibility import total_violation
from search.hypervolume import Box
from search.records import Baseline, Best, Trial
from search.spec import Objective


def _objective(trial: Trial, objective: Objective, box: Box | None) -> tuple[float, ...]:
    """Smaller is better. Ties go to the faster, then the smaller, then the earlier trial."""
    assert trial.latency is not None and trial.size_bytes is not None
    metric = -(trial.metric if trial.metric is not None else float("-inf"))
    ratio, size = trial.latency.ratio, float(trial.size_bytes)
    first: tuple[float, ...]
    if objective == "latency":
        first = (ratio, metric, size)
    elif objective == "size":
        first = (size, metric, ratio)
    elif objective == "pareto" and box is not None:
        first = (-box.volume([trial]), metric, ratio, size)
    else:
        first = (metric, ratio, size)
    return (*first, trial.number)


def ranked(trials: Iterable[Trial], objective: Objective, box: Box | None = None) -> list[Trial]:
    """Feasible, scored trials, best first.

    pareto: the answer is the whole front; the one that stands for it is its best compromise, whose own hypervolume in
    `box` is largest: the product of what it leaves of the allowed loss and of the latency and size that it saves, the
    bargaining solution of Nash 1950 (Econometrica 18) from the reference point. Without a box: by the metric.
    """
    return sorted(
        (t for t in trials if t.feasible and t.metric is not None), key=lambda trial: _objective(trial, objective, box)
    )


def aims(trial: Trial, objective: Objective) -> tuple[float, ...]:
    """What a sampler is to raise, one value per aim: the metric, or the logarithm of what is saved; pareto has three.

    The trial must be scored and measured. Whether it keeps the allowed loss is a constraint, not an aim.
    """
    assert trial.metric is not None and trial.latency is not None and trial.size_ratio is not None
    found = {
        "metric": trial.metric,
        "latency": -math.log(max(trial.latency.ratio, 1e-9)),
        "size": -math.log(max(trial.size_ratio, 1e-9)),
    }
    return tuple(found.values()) if objective == "pareto" else (found[objective],)


def nearest_miss(trials: Iterable[Trial]) -> Trial | None:
    """The measured trial that is over the budget by least (sum of relative excesses).

    It may not have been scored, and may even be inside the cost limits, when a search ends early. Ties: the better
    metric, then the larger model.
    """
    measured = [t for t in trials if t.latency is not None and not t.feasible]
    return min(
        measured,
        key=lambda t: (
            total_violation(t.violations),
            -(t.metric if t.metric is not None else float("-inf")),
            -(t.macs or 0),
            t.number,
        ),
        default=None,
    )


def as_best(trial: Trial, baseline: Baseline, *, test_metric: float | None = None) -> Best:
    assert trial.latency is not None and trial.size_bytes is not None and trial.metric is not None
    return Best(
        trial=trial.number,
        metric=trial.metric,
        latency_ms=trial.latency.p50_ms,
        latency_ratio=trial.latency.ratio,
        size_bytes=trial.size_bytes,
        size_ratio=trial.size_bytes / baseline.size_bytes,
        feasible=bool(trial.feasible),
        violations=trial.violations,
        test_metric=test_metric,
    )

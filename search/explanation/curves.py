"""How a search went: the front's hypervolume and the best answer so far, over the seconds that the job ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from search.records import Score, Trial
from search.spec import Objective

POINTS = 300  # of a curve; between them it is thinned evenly

Curve = list[tuple[float, float]]


def curves(trials: Iterable[Trial], objective: Objective) -> dict[str, Any]:
    """{hypervolume, best: [[seconds, value], …], best_of}: steps, each value holding until the next.

    best_of says what `best` is: the metric, or for objectives `latency` and `size` that ratio, of the best candidate
    inside the budget so far. Cost: O(scores log scores).
    """
    looks = sorted(((s, t) for t in trials for s in t.scores), key=lambda look: look[0].elapsed_s)
    volumes = [(s.elapsed_s, s.hypervolume) for s, _ in looks if s.hypervolume is not None]
    best: Curve = []
    for score, trial in looks:
        value = _value(score, trial, objective) if score.feasible else None
        better = value is not None and (not best or (value - best[-1][1]) * (1 if _rises(objective) else -1) > 0)
        if value is not None and better:
            best.append((score.elapsed_s, value))
    end = looks[-1][0].elapsed_s if looks else 0.0
    return {
        "hypervolume": _thinned(_steps(volumes), end),
        "best": _thinned(best, end),
        "best_of": "metric" if _rises(objective) else f"{objective}_ratio",
    }


def _rises(objective: Objective) -> bool:
    return objective in ("metric", "pareto")


def _value(score: Score, trial: Trial, objective: Objective) -> float | None:
    if objective == "latency":
        return None if trial.latency is None else trial.latency.ratio
    return trial.size_ratio if objective == "size" else score.metric


def _steps(points: Iterable[tuple[float, float]]) -> Curve:
    """Only where the value changes; of several at one moment the last."""
    found: Curve = []
    for at, value in points:
        if found and found[-1][0] == at:
            found[-1] = (at, value)
        elif not found or found[-1][1] != value:
            found.append((at, value))
    return found


def _thinned(curve: Curve, end: float) -> list[list[float]]:
    """At most POINTS of them, with the first and the last, and where the job ended."""
    if curve and curve[-1][0] < end:
        curve = [*curve, (end, curve[-1][1])]
    chosen: Sequence[tuple[float, float]] = curve
    if len(curve) > POINTS:
        step = (len(curve) - 1) / (POINTS - 1)
        chosen = [curve[round(i * step)] for i in range(POINTS)]
    return [[round(at, 2), round(value, 6)] for at, value in chosen]

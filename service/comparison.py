"""What a scheduled job has found against the schedule's last good job, from what both have recorded.

Better and worse are said only of differences that noise does not explain:

- metric: on the test split if both were confirmed on the same one. Beyond 2 * sqrt(e1^2 + e2^2), where e is the
  standard error that each job recorded of the difference between its winner and its own original on these rows. Other
  rows, or no recorded error: no verdict.
- latency: of the ratio to the uncompressed model, whose 95 % intervals must not overlap. Measured in a noisy moment, or
  no interval: no verdict. Milliseconds are told, never judged: two nights are two states of a machine.
- size: beyond 0.5 % of the earlier file; sizes are exact, but no one is to be woken for a few bytes.

A regression is a metric, latency or size that is worse, or a budget that is no longer met. One that is worse because
something else is better counts as well: `better` tells that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Json = Mapping[str, Any]
Verdict = Literal["better", "worse", "within_noise", "unknown"]
STANDARD_ERRORS = 2.0
SIZE_NOISE = 0.005
MAX_POINTS = 200  # of a front that are compared


@dataclass(frozen=True, kw_only=True)
class Side:
    """One job: its best trial and report as they were stored, and at most MAX_POINTS trials of its front; all JSON."""

    job: str
    finished_at: str | None
    outcome: str | None
    spec: Json
    best: Json
    report: Json
    front: Sequence[Json]


def compare(before: Side, after: Side) -> dict[str, Any]:
    """The job's `previous`, as JSON. Differences are after - before."""
    judged = {
        "metric": _metric(before, after),
        "latency_ratio": _latency(before, after),
        "size_bytes": _size(before, after),
    }
    was, is_now = before.outcome == "feasible", after.outcome == "feasible"
    better = [name for name, row in judged.items() if row["verdict"] == "better"]
    worse = [name for name, row in judged.items() if row["verdict"] == "worse"]
    return {
        "job": before.job,
        "finished_at": before.finished_at,
        "better": better,
        "worse": worse,
        "newly_infeasible": was and not is_now,
        "newly_feasible": is_now and not was,
        "regression": bool(worse) or (was and not is_now),
        **judged,
        "latency_ms": _change(before.best.get("latency_ms"), after.best.get("latency_ms")),
        "front": _fronts(before.front, after.front),
        "changed": changed(before.spec, after.spec),
    }


def changed(before: Json, after: Json) -> list[str]:
    """Fields of the specification that differ, as `model` or `data.train`; not where the search began."""
    found = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = sorted({*old, *new} - ({"start_from"} if name == "search" else set()))
            found += [f"{name}.{key}" for key in inner if old.get(key) != new.get(key)]
        elif old != new:
            found.append(name)
    return found


def _change(before: float | None, after: float | None) -> dict[str, Any]:
    delta = None if before is None or after is None else after - before
    return {"before": before, "after": after, "delta": delta}


def _judged(change: dict[str, Any], noise: float | None, *, higher_is_better: bool) -> dict[str, Any]:
    delta = change["delta"]
    verdict: Verdict = "unknown"
    if delta is not None and noise is not None:
        better = delta > 0 if higher_is_better else delta < 0
        verdict = "within_noise" if abs(delta) <= noise else "better" if better else "worse"
    return {**change, "noise": noise, "verdict": verdict}


def _metric(before: Side, after: Side) -> dict[str, Any]:
    tested = before.best.get("test_metric") is not None and after.best.get("test_metric") is not None
    field, split = ("test_metric", "test") if tested else ("metric", "validation")
    change = {"split": split, **_change(before.best.get(field), after.best.get(field))}
    old, new = _error(before), _error(after)
    noise = None
    if tested and before.spec.get("data") == after.spec.get("data") and old is not None and new is not None:
        noise = STANDARD_ERRORS * math.hypot(old, new)
    return _judged(change, noise, higher_is_better=True)


def _error(side: Side) -> float | None:
    error: float | None = (side.report.get("test") or {}).get("difference_error")
    return error


def _latency(before: Side, after: Side) -> dict[str, Any]:
    change = _change(before.best.get("latency_ratio"), after.best.get("latency_ratio"))
    measured = [(side.report.get("winner") or {}).get("latency") or {} for side in (before, after)]
    old, new = (latency.get("ratio_ci") for latency in measured)
    verdict: Verdict = "unknown"
    if old and new and not any(latency.get("noisy") for latency in measured):
        verdict = "better" if new[1] < old[0] else "worse" if new[0] > old[1] else "within_noise"
    return {**change, "interval_before": old, "interval_after": new, "verdict": verdict}


def _size(before: Side, after: Side) -> dict[str, Any]:
    old = before.best.get("size_bytes")
    noise = None if old is None else SIZE_NOISE * old
    return _judged(_change(old, after.best.get("size_bytes")), noise, higher_is_better=False)


def _fronts(before: Sequence[Json], after: Sequence[Json]) -> dict[str, Any]:
    """new: trials of this front whose recipe is not on the earlier one. gone: trials of the earlier job, the reverse.

    beats: earlier points that one of this front beats in everything; beaten: the reverse.
    """
    old_recipes, new_recipes = {_recipe(t) for t in before}, {_recipe(t) for t in after}
    return {
        "before": len(before),
        "after": len(after),
        "new": [t["number"] for t in after if _recipe(t) not in old_recipes],
        "gone": [t["number"] for t in before if _recipe(t) not in new_recipes],
        "beats": sum(any(_beats(a, b) for a in after) for b in before),
        "beaten": sum(any(_beats(b, a) for b in before) for a in after),
    }


def _recipe(trial: Json) -> str:
    return json.dumps(trial.get("recipe"), sort_keys=True)


def _beats(one: Json, other: Json) -> bool:
    """As good in metric, latency and size, and better in one of them."""
    a, b = _point(one), _point(other)
    if a is None or b is None:
        return False
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


def _point(trial: Json) -> tuple[float, float, float] | None:
    """Lower is better in each."""
    latency, metric, size = trial.get("latency") or {}, trial.get("metric"), trial.get("size_bytes")
    ratio = latency.get("ratio")
    return None if metric is None or ratio is None or size is None else (-metric, ratio, size)

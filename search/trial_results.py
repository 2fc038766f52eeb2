"""What a result makes of a trial's row. Pure functions."""

from __future__ import annotations

from dataclasses import replace

from compressors.recipe import Distillation, Recipe
from search.feasibility import Measured, violations
from search.records import Baseline, Fidelity, Predicted, Trial
from search.spec import Budget
from search.work import Gated, Scored


def after_gate(trial: Trial, result: Gated, budget: Budget, baseline: Baseline) -> Trial:
    """The row with its shape and measured cost; violations are those of the cost limits."""
    measured = Measured(
        latency_ms=result.latency.p50_ms, latency_ratio=result.latency.ratio, size_bytes=result.size_bytes
    )
    return replace(
        trial,
        recipe=result.recipe.to_json(),
        latency=result.latency,
        size_bytes=result.size_bytes,
        size_ratio=result.size_bytes / baseline.size_bytes,
        macs=result.macs,
        parameters=result.parameters,
        violations=violations(budget, baseline, measured),
        stages=(*trial.stages, *result.stages),
        predicted=None
        if result.predicted is None
        else Predicted(latency_ratio=result.predicted[0], size_ratio=result.predicted[1]),
    )


def after_score(trial: Trial, result: Scored, budget: Budget, baseline: Baseline, *, done: bool) -> Trial:
    """The row with the metric of its file. done: no rung is left that it could be promoted to."""
    assert trial.latency is not None
    measured = Measured(
        latency_ms=trial.latency.p50_ms,
        latency_ratio=trial.latency.ratio,
        size_bytes=result.size_bytes,
        metric=result.metric,
    )
    missed = violations(budget, baseline, measured)
    return replace(
        trial,
        state="completed" if done else "stopped",
        reason=None if done else f"rung {result.rung}: waits to be promoted",
        recipe=carried_out(Recipe.from_json(trial.recipe or {}), result.samples).to_json(),
        metric=result.metric,
        size_bytes=result.size_bytes,
        size_ratio=result.size_bytes / baseline.size_bytes,
        violations=missed,
        feasible=not missed,
        fidelity=Fidelity(rung=result.rung, samples=result.samples),
        stages=(*trial.stages, *result.stages),
        artifact=result.sha256,
    )


def carried_out(recipe: Recipe, samples: int) -> Recipe:
    """The recipe with the samples that its tuning really saw."""
    return Recipe(tuple(replace(s, samples=samples) if isinstance(s, Distillation) else s for s in recipe.steps))

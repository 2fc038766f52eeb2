"""The last stage: the winner's file measured once more, longer, and scored on data that the search never saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from compressors.recipe import Recipe
from search.coordinator import Answer, Coordinator
from search.feasibility import Measured, violations
from search.records import Fidelity, Trial
from search.spec import JobSpec
from search.work import Confirmed, ConfirmWork, Failed, Scored, ScoreWork

TRIES = 3  # candidates re-measured until one meets the budget again
NEAREST_MISS_SECONDS = 40.0  # tuning of an answer that no candidate could earn


@dataclass(frozen=True)
class Verdict:
    """trial: with the numbers that were confirmed. artifact: relative to the workspace. reason: for the job."""

    trial: Trial | None
    confirmed: Confirmed | None
    artifact: str
    reason: str


def confirm(
    spec: JobSpec, coordinator: Coordinator, answer: Answer, evaluate: Callable[..., object], remaining: float
) -> Verdict:
    """Confirms the best feasible trial; where a longer measurement shows that it misses the budget, the next one.

    Without a feasible trial the nearest miss is tuned a little and confirmed as such. The test split is read for the
    model that is answered, and for it alone.
    """
    refused: list[str] = []
    for trial in coordinator.book.ranked(spec.objective)[:TRIES]:
        confirmed = evaluate(_confirm_work(trial))
        if isinstance(confirmed, Failed):
            refused.append(f"trial {trial.number}: {confirmed.reason}")
            coordinator.book.log("error", f"confirm: {confirmed.reason}", trial.number)
            continue
        assert isinstance(confirmed, Confirmed)
        settled = _with_confirmed(spec, coordinator, trial, confirmed)
        if settled.feasible and settled.state == "stopped" and settled.fidelity is not None:
            settled = replace(settled, reason=f"the answer, confirmed after rung {settled.fidelity.rung}")
        coordinator.book.put(settled)
        if settled.feasible:
            return Verdict(settled, confirmed, confirmed.artifact, answer.reason)
        refused.append(_missed(settled))
        coordinator.book.log("warning", f"measured longer, {_missed(settled)}", trial.number)
    return _nearest(spec, coordinator, answer, evaluate, remaining, refused)


def _nearest(
    spec: JobSpec,
    coordinator: Coordinator,
    answer: Answer,
    evaluate: Callable[..., object],
    remaining: float,
    refused: list[str],
) -> Verdict:
    trial = coordinator.nearest()
    if trial is None:
        why = "; ".join(refused) or "no candidate could be measured"
        return Verdict(None, None, "", f"{answer.reason}; {why}")
    recipe = Recipe.from_json(trial.recipe or {})
    if trial.metric is None:
        scored = evaluate(_last_tuning(coordinator, trial, recipe, remaining))
        if isinstance(scored, Failed):
            return Verdict(None, None, "", f"{answer.reason}; the nearest miss failed: {scored.reason}")
        assert isinstance(scored, Scored)
        trial = replace(trial, metric=scored.metric, fidelity=Fidelity(rung=scored.rung, samples=scored.samples))
    confirmed = evaluate(_confirm_work(trial))
    if isinstance(confirmed, Failed):
        return Verdict(None, None, "", f"{answer.reason}; the nearest miss failed: {confirmed.reason}")
    assert isinstance(confirmed, Confirmed)
    settled = _with_confirmed(spec, coordinator, trial, confirmed)
    if trial.number in coordinator.book.rows and coordinator.book[trial.number].metric is not None:
        coordinator.book.put(settled)
    return Verdict(settled, confirmed, confirmed.artifact, f"{answer.reason}; {_missed(settled)}")


def _confirm_work(trial: Trial) -> ConfirmWork:
    recipe, seen = Recipe.from_json(trial.recipe or {}), trial.fidelity or Fidelity(rung=0, samples=0)
    return ConfirmWork(trial=trial.number, recipe=recipe, rung=seen.rung, samples=seen.samples)


def _last_tuning(coordinator: Coordinator, trial: Trial, recipe: Recipe, remaining: float) -> ScoreWork:
    """The answer to an impossible budget should still be worth having: it is tuned within a fixed time."""
    seconds = max(1.0, min(NEAREST_MISS_SECONDS, 0.5 * remaining))
    assert coordinator.profile is not None
    rows = coordinator.profile.rows["tuning"]
    samples = int(min(seconds * coordinator.profile.samples_per_second, 20 * rows)) if recipe.distillation else 0
    return ScoreWork(trial=trial.number, recipe=recipe, rung=0, start=0, stop=samples, seconds=seconds)


def _with_confirmed(spec: JobSpec, coordinator: Coordinator, trial: Trial, confirmed: Confirmed) -> Trial:
    assert coordinator.profile is not None
    baseline = coordinator.profile.baseline
    measured = Measured(
        latency_ms=confirmed.latency.p50_ms,
        latency_ratio=confirmed.latency.ratio,
        size_bytes=confirmed.size_bytes,
        metric=confirmed.metric,
    )
    missed = violations(spec.budget, baseline, measured)
    return replace(
        trial,
        latency=confirmed.latency,
        size_bytes=confirmed.size_bytes,
        size_ratio=confirmed.size_bytes / baseline.size_bytes,
        metric=confirmed.metric,
        violations=missed,
        feasible=not missed,
        artifact=confirmed.sha256,
        stages=(*trial.stages, *confirmed.stages),
    )


def _missed(trial: Trial) -> str:
    over = ", ".join(f"{v.field} {v.value:.4g} is over {v.limit:.4g} by {v.excess:.4g}" for v in trial.violations)
    return f"trial {trial.number}: {over}" if over else f"trial {trial.number} meets the budget"

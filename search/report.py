"""The report of a job as one JSON document: everything that the numbers rest on."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from compressors.recipe import Recipe
from compressors.tasks import describe
from search.confirmation import Verdict
from search.coordinator import Answer, Coordinator
from search.explanation.explanation import explanation
from search.inputs import JobInputs
from search.limits import explain
from search.profile import Profile
from search.records import Stage
from search.spec import JobSpec

REPORT_VERSION = 1


def build_report(inputs: JobInputs, coordinator: Coordinator, answer: Answer, verdict: Verdict) -> dict[str, Any]:
    """Sections that a job never reached are null."""
    profile = coordinator.profile
    assert profile is not None
    trials = coordinator.book.all
    floors = [t for t in coordinator.book.of_origin("floor") if t.latency is not None]
    missed = verdict.trial.violations if verdict.trial is not None else ()
    return {
        "version": REPORT_VERSION,
        "job": {"id": inputs.job_id, "spec": inputs.spec.model_dump(mode="json")},
        "task": _task(inputs.spec),
        "reason": verdict.reason,
        "stopped_because": answer.reason,
        "baseline": _baseline(profile, verdict),
        "winner": _winner(verdict),
        "test": _test(verdict),
        "parity": _parity(verdict),
        "limits": explain(inputs.spec, profile, floors, missed, verdict.confirmed),
        "floors": [t.to_json() for t in floors],
        "sensitivity": None if coordinator.sensitivity is None else coordinator.sensitivity.table(),
        "groups": _groups(profile, verdict),
        "left_out": dict(profile.left_out),
        "stages": _stages(coordinator, verdict),
        "counts": dict(Counter(t.state for t in trials)),
        "explanation": explanation(
            inputs.spec,
            profile,
            coordinator.sensitivity,
            trials,
            coordinator.book.front,
            verdict.trial,
            _common_stages(coordinator, verdict),
        ),
        "front": [t.number for t in trials if t.number in coordinator.book.front],
        "environment": {**profile.fingerprint, "slot": "exclusive, one per machine"},
        "splits": dict(profile.rows),
        "notes": [
            "Latency: both files loaded nine times anew, rounds alternating between them; the ratio is the mean over "
            "these sessions, and a further session falls into the interval with 95 % probability.",
            "Metric: of the exported file, reloaded from disk. The test split was read for this model only.",
        ],
    }


def _task(spec: JobSpec) -> dict[str, Any]:
    metric = describe(spec.task).metric(spec.metric)
    return {"name": spec.task, "metric": metric.name, "metric_title": metric.title, "higher_is_better": True}


def _baseline(profile: Profile, verdict: Verdict) -> dict[str, Any]:
    """Latencies are those measured in the same rounds as the winner's, where there is one."""
    found = {**asdict(profile.baseline), "p90_ms": profile.baseline_p90_ms, "parity": profile.parity}
    if verdict.confirmed is not None:
        found |= {"latency_ms": verdict.confirmed.baseline_latency_ms, "p90_ms": verdict.confirmed.baseline_p90_ms}
    return found


def _winner(verdict: Verdict) -> dict[str, Any] | None:
    trial, confirmed = verdict.trial, verdict.confirmed
    if trial is None or confirmed is None:
        return None
    return {
        "trial": trial.number,
        "origin": trial.origin,
        "recipe": trial.recipe,
        "feasible": trial.feasible,
        "metric": confirmed.metric,
        "test_metric": confirmed.test_metric,
        "latency": asdict(confirmed.latency),
        "baseline_latency": {"p50_ms": confirmed.baseline_latency_ms, "p90_ms": confirmed.baseline_p90_ms},
        "size_bytes": confirmed.size_bytes,
        "size_ratio": trial.size_ratio,
        "macs": trial.macs,
        "parameters": trial.parameters,
        "violations": [asdict(v) for v in trial.violations],
        "sha256": confirmed.sha256,
        "kernels": dict(confirmed.kernels),
        "fidelity": None if trial.fidelity is None else asdict(trial.fidelity),
    }


def _test(verdict: Verdict) -> dict[str, Any] | None:
    confirmed = verdict.confirmed
    if confirmed is None:
        return None
    return {
        "rows": confirmed.test_rows,
        "baseline_metric": confirmed.baseline_test_metric,
        "winner_metric": confirmed.test_metric,
        "difference_error": confirmed.test_metric_error,
    }


def _parity(verdict: Verdict) -> dict[str, Any] | None:
    confirmed = verdict.confirmed
    if confirmed is None:
        return None
    return {"max_abs_error": confirmed.max_abs_error, "agreement": confirmed.agreement}


def _groups(profile: Profile, verdict: Verdict) -> list[dict[str, Any]]:
    """Channels before and after, group by group, in the order of the network."""
    kept: dict[str, int] = {}
    if verdict.trial is not None and verdict.trial.recipe is not None:
        pruning = Recipe.from_json(verdict.trial.recipe).pruning
        kept = dict(pruning.keep) if pruning is not None else {}
    return [{"name": g.name, "size": g.size, "kept": kept.get(g.name, g.size)} for g in profile.groups]


def _stages(coordinator: Coordinator, verdict: Verdict) -> list[dict[str, Any]]:
    """Seconds by stage over all trials; cached: how many of them were found instead of computed."""
    seconds: dict[str, float] = {}
    calls: Counter[str] = Counter()
    cached: Counter[str] = Counter()
    stages = [s for t in coordinator.book.all for s in t.stages]
    for stage in (*stages, *_common_stages(coordinator, verdict)):
        seconds[stage.name] = seconds.get(stage.name, 0.0) + stage.seconds
        calls[stage.name] += 1
        cached[stage.name] += stage.cached
    return [
        {"name": name, "seconds": round(total, 3), "calls": calls[name], "cached": cached[name]}
        for name, total in seconds.items()
    ]


def _common_stages(coordinator: Coordinator, verdict: Verdict) -> list[Stage]:
    """Of works that stand in no trial's row."""
    stages = list(coordinator.common_stages)
    if verdict.confirmed is not None and (verdict.trial is None or verdict.trial.number not in coordinator.book.rows):
        stages += list(verdict.confirmed.stages)
    return stages

"""A finished search as its rows: what the faces (page, report, command line) show in their tests.

Numbers follow the shape of a real search (a cheap int8 answer, gated candidates, promoted ones, a winner), made by a
fixed rule and not by chance, so that a test can name them.
"""

from __future__ import annotations

from typing import Any

from search.records import Baseline, Best, Fidelity, Latency, Stage, Trial, Violation

BASELINE = Baseline(metric=0.8802, latency_ms=0.813, size_bytes=1_162_740, macs=40_810_000, parameters=269_722)
BUDGET = {"latency_ratio": 0.45, "size_ratio": 0.25, "max_metric_drop": 0.03}
GROUPS = {"conv_1": 16, "stage_1.0.conv_a": 16, "stage_2.0.conv_a": 32, "stage_3.0.conv_a": 64}


def spec(model: str = "model-1", data: str = "data-1") -> dict[str, Any]:
    return {
        "name": "edge",
        "model": model,
        "task": "classification",
        "data": {"train": data, "inputs": ["image"], "target": "label", "validation_fraction": 0.2},
        "target": {"runtime": "onnxruntime", "device": "cpu", "threads": 1, "batch_size": 1},
        "budget": BUDGET,
        "objective": "metric",
        "search": {"max_trials": 40, "max_seconds": 600, "parallel": 2},
    }


def recipe(share: float | None, samples: int = 0, *, int8: bool = True) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    if share is not None:
        keep = {name: max(1, round(size * share)) for name, size in GROUPS.items()}
        steps.append({"technique": "structured_pruning", "keep": keep, "importance": "l2"})
    if samples:
        steps.append({"technique": "distillation", "temperature": 4.0, "alpha": 0.9, "samples": samples})
    if int8:
        steps.append({"technique": "quantization", "bits": 8, "observer": "percentile", "float_layers": []})
    return {"version": 1, "steps": steps}


def trial(number: int, share: float | None, rung: int | None, *, int8: bool = True) -> Trial:
    """share: of the channels kept; rung None: gated, with latency but without a metric."""
    kept = 1.0 if share is None else share
    latency = (0.18 + 0.30 * kept) * (1.0 if int8 else 2.08)
    size = (0.06 + 0.26 * kept**1.4) * (1.0 if int8 else 3.12)
    drop = 0.0005 + 0.11 * (1 - kept) ** 1.5 / (1 + (rung or 0)) + 0.001 * (number % 4)
    metric = None if rung is None else round(BASELINE.metric - drop, 4)
    violations = [
        Violation(field=name, limit=limit, value=round(value, 4), excess=round(value - limit, 4))
        for name, value, limit in (
            ("latency_ratio", latency, 0.45),
            ("size_ratio", size, 0.25),
            ("max_metric_drop", 0.0 if metric is None else drop, 0.03),
        )
        if value > limit
    ]
    return Trial(
        number=number,
        state="gated" if rung is None else "completed" if rung == 2 else "stopped",
        reason="latency_ratio is above its limit before tuning" if rung is None else None,
        origin="int8 only"
        if share is None and int8
        else "export only"
        if share is None
        else ("solver", "tpe")[number % 2],
        recipe=recipe(share, 4096 * (rung or 0), int8=int8),
        metric=metric,
        latency=Latency(
            p50_ms=round(latency * BASELINE.latency_ms, 4),
            p90_ms=round(latency * BASELINE.latency_ms * 1.08, 4),
            ratio=round(latency, 4),
            ratio_ci=(round(latency * 0.985, 4), round(latency * 1.016, 4)),
            repeats=400,
        ),
        size_bytes=int(size * BASELINE.size_bytes),
        size_ratio=round(size, 4),
        macs=int(BASELINE.macs * kept**1.7),
        parameters=int(BASELINE.parameters * kept**1.5),
        feasible=False if rung is None else not violations,
        violations=tuple(violations),
        fidelity=None if rung is None else Fidelity(rung=rung, samples=4096 * rung),
        stages=(
            Stage(name="shape", seconds=0.12 + 0.01 * (number % 5)),
            Stage(name="cost", seconds=0.31, cached=number % 3 == 0),
            *(() if rung is None else (Stage(name="tune", seconds=6.5 * rung), Stage(name="realise", seconds=1.9))),
        ),
        worker="host:4242",
    )


def trials(count: int = 24) -> list[Trial]:
    """Trial 0 is the export alone, trial 1 int8 alone; then shares between 0.40 and 0.94 in a fixed order."""
    rows = [trial(0, None, 0, int8=False), trial(1, None, 0)]
    for number in range(2, count):
        share = 0.40 + 0.06 * ((number * 7) % 10)
        gated = share > 0.85
        rows.append(trial(number, share, None if gated else number % 3))
    inside = sorted((t for t in rows if t.feasible and t.metric is not None), key=lambda t: -(t.metric or 0))
    front, best_size = set(), float("inf")
    for row in inside:
        if (row.size_ratio or 1) < best_size:
            front.add(row.number)
            best_size = row.size_ratio or 1
    return [Trial.from_json({**t.to_json(), "on_front": t.number in front}) for t in rows]


def best(rows: list[Trial]) -> Best:
    top = max((t for t in rows if t.feasible), key=lambda t: t.metric or 0)
    assert top.latency is not None
    assert top.metric is not None
    assert top.size_bytes is not None
    assert top.size_ratio is not None
    return Best(
        trial=top.number,
        metric=top.metric,
        latency_ms=top.latency.p50_ms,
        latency_ratio=top.latency.ratio,
        size_bytes=top.size_bytes,
        size_ratio=top.size_ratio,
        feasible=True,
        test_metric=0.8655,
    )


def report(rows: list[Trial]) -> dict[str, Any]:
    """Every section that a report may have."""
    top = best(rows)
    winner = next(t for t in rows if t.number == top.trial)
    document = winner.to_json()
    return {
        "version": 1,
        "job": {"name": "edge", "objective": "metric"},
        "baseline": {
            "metric": 0.8802,
            "latency_ms": 0.813,
            "size_bytes": 1_162_740,
            "macs": 40_810_000,
            "parameters": 269_722,
        },
        "winner": {
            "trial": top.trial,
            "recipe": document["recipe"],
            "metric": top.metric,
            "test_metric": top.test_metric,
            "latency": document["latency"],
            "size_bytes": top.size_bytes,
            "size_ratio": top.size_ratio,
            "macs": document["macs"],
            "parameters": document["parameters"],
            "violations": [],
            "sha256": "ab" * 32,
            "kernels": {"QLinearConv": 12, "QGemm": 1},
        },
        "test": {"rows": 10_000, "baseline_metric": 0.8796, "winner_metric": 0.8655, "difference_error": 0.0021},
        "parity": {"max_abs_error": 0.0123, "agreement": 0.998},
        "limits": [
            {
                "field": "latency_ratio",
                "limit": 0.2,
                "value": 0.24,
                "explanation": "the runtime's fixed cost per operator",
            }
        ],
        "sensitivity": {
            "structured_pruning": {
                name: {
                    level: {"metric": 0.88 - loss, "loss": loss}
                    for level, loss in (("0.75", 0.01 * i), ("0.5", 0.04 * i))
                }
                for i, name in enumerate(GROUPS, start=1)
            },
            "quantization": {name: {"int8": {"metric": 0.88, "loss": 0.0004}} for name in GROUPS},
        },
        "groups": [{"name": n, "size": s, "kept": max(1, round(s * 0.5))} for n, s in GROUPS.items()],
        "stages": [
            {"name": "profile", "seconds": 2.1, "calls": 1, "cached": 0},
            {"name": "sensitivity", "seconds": 14.8, "calls": 1, "cached": 1},
            {"name": "tune", "seconds": 210.4, "calls": 12, "cached": 0},
        ],
        "explanation": explanation(),
        "counts": {"completed": 7, "stopped": 11, "gated": 6},
        "front": [t.number for t in rows if t.on_front],
        "environment": {
            "cpu": "Example CPU @ 3.0 GHz",
            "onnxruntime": "1.32.0",
            "torch": "2.13.0",
            "flags": ["avx2", "fma"],
            "threads": 1,
        },
        "splits": {"train": 45_000, "validation": 5_000, "test": 10_000},
        "notes": ["latency: 20 rounds that alternate the candidate with the baseline"],
    }


def explanation() -> dict[str, Any]:
    """Every part of it, as `search.explanation` writes them."""
    return {
        "version": 1,
        "importance": {
            "method": "fanova",
            "trials": 21,
            "rung": 1,
            "knobs": [
                {"name": "channel_multiple", "importance": 0.7, "correlation": -0.62, "p_value": 0.002},
                {"name": "observer", "importance": 0.2, "correlation": None, "p_value": 0.01},
                {"name": "temperature", "importance": 0.1, "correlation": 0.05, "p_value": 0.81},
            ],
            "note": "share of the metric's variance that a knob explains alone",
        },
        "layers": {
            "rows": [
                {
                    "name": name,
                    "kind": "Conv2d",
                    "groups": [name],
                    "channels": [size, size // 2],
                    "inputs": [size, size // 2],
                    "bits": [32, 8],
                    "latency_share": [0.25, 0.25],
                    "latency_ms": [0.2, 0.08],
                    "bytes": [9 * size * size * 4, 9 * size * size // 4],
                    "loss": 0.04,
                    "dropped": False,
                }
                for name, size in GROUPS.items()
            ],
            "left_out": 0,
            "measurements": 18,
        },
        "rejected": {
            "lines": [
                {
                    "stage": "gate",
                    "why": "over latency_ratio",
                    "count": 11,
                    "trials": [4, 9],
                    "smallest_margin": 0.031,
                    "median_margin": 0.1,
                },
                {
                    "stage": "rung 0",
                    "why": "outranked",
                    "count": 2,
                    "trials": [5, 6],
                    "smallest_margin": 0.0012,
                    "median_margin": 0.01,
                },
            ],
            "left_out": 1,
        },
        "prices": {
            "latency": {
                "unit": "ms",
                "cost": 0.33,
                "measured": {
                    "cheaper": {"trial": 7, "cost": 0.3, "metric": 0.86, "per_unit": 0.2},
                    "dearer": None,
                },
                "predicted": [
                    {"cost": 0.297, "loss": 0.3, "metric_change": -0.008},
                    {"cost": 0.33, "loss": 0.2, "metric_change": 0.0},
                    {"cost": 0.363, "loss": 0.15, "metric_change": 0.004},
                ],
            },
            "size": {
                "unit": "kB",
                "cost": 280.0,
                "measured": {"cheaper": None, "dearer": None},
                "predicted": [
                    {"cost": 280.0, "loss": 0.2, "metric_change": 0.0},
                    {"cost": 308.0, "loss": 0.199, "metric_change": 0.0001},
                ],
            },
            "worth_of_a_nat": {"metric_per_nat": 0.08, "error": 0.001, "trials": 11, "rank_correlation": 0.9},
        },
        "predictions": {
            "count": 23,
            "latency": {"median_error": 0.062, "late_median_error": 0.031, "worst_error": 0.4},
            "size": {"median_error": 0.01, "late_median_error": 0.01, "worst_error": 0.02},
            "pairs": [{"trial": 3, "predicted": 0.41, "measured": 0.4}],
        },
        "spending": {
            "total_s": 240.0,
            "tuning_s": 210.0,
            "feasible_tuning_s": 210.0,
            "feasible_tuning_share": 0.875,
            "slot_share": 0.6,
            "tuned_over_budget": [],
            "over_when_measured_longer": [8],
        },
        "curves": {
            "hypervolume": [[20.0, 0.31], [60.5, 0.42], [300.0, 0.45], [359.0, 0.45]],
            "best": [[20.0, 0.81], [300.0, 0.8655], [359.0, 0.8655]],
            "best_of": "metric",
        },
        "front": {"hypervolume": 0.45, "allowed_drop": 0.03, "members": [], "left_out": 0},
    }


def job_json(rows: list[Trial], state: str = "succeeded") -> dict[str, Any]:
    """The job as GET /v1/jobs/{id} shows it."""
    top = best(rows)
    counts = {s: sum(t.state == s for t in rows) for s in ("completed", "stopped", "gated", "failed")}
    return {
        "id": "job-1",
        "name": "edge",
        "state": state,
        "reason": None,
        "outcome": "feasible" if state == "succeeded" else None,
        "directive": "run",
        "spec": spec(),
        "created_at": "2026-01-05T10:00:00Z",
        "started_at": "2026-01-05T10:00:01Z",
        "finished_at": "2026-01-05T10:06:00Z",
        "rev": 99,
        "progress": {
            "stage": "confirm",
            "finished": sum(counts.values()),
            "running": 0,
            "gated": counts["gated"],
            "planned": 40,
            "elapsed_s": 359.0,
            "eta_s": None,
        },
        "baseline": vars(BASELINE) | {},
        "best": {**vars(top), "violations": []},
    }

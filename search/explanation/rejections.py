"""What was tried and not taken, and at which stage: by which limit, by how much, outranked by whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from search.outranking import Outranking
from search.records import Trial

NAMED = 8  # trials named per line; the rest are counted
LINES = 40


@dataclass
class _Line:
    """stage: 'gate', 'rung N' or 'failed'. margins: how far each was off, as a share of the limit at a gate, in the
    metric at a rung."""

    stage: str
    why: str
    trials: list[int] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)


def rejections(trials: Sequence[Trial], winner: int | None) -> dict[str, Any]:
    """{lines: [{stage, why, count, trials, smallest_margin, median_margin}], left_out}, in the order of the stages.

    trials: the first few of them. left_out: lines that are not shown. Cost: O(trials log trials).
    """
    outranking = Outranking(trials)
    lines: dict[tuple[str, str], _Line] = {}
    for trial in trials:
        found = _why(trial, outranking) if trial.number != winner else None
        if found is not None:
            stage, why, margin = found
            line = lines.setdefault((stage, why), _Line(stage, why))
            line.trials.append(trial.number)
            line.margins += [] if margin is None else [margin]
    ordered = sorted(lines.values(), key=lambda line: (line.stage == "failed", line.stage, -len(line.trials), line.why))
    return {
        "lines": [
            {
                "stage": line.stage,
                "why": line.why,
                "count": len(line.trials),
                "trials": line.trials[:NAMED],
                "smallest_margin": None if not line.margins else round(min(line.margins), 6),
                "median_margin": None if not line.margins else round(median(line.margins), 6),
            }
            for line in ordered[:LINES]
        ],
        "left_out": max(0, len(ordered) - LINES),
    }


def _why(trial: Trial, outranking: Outranking) -> tuple[str, str, float | None] | None:
    """(stage, why, margin); None for a trial that nothing rejected."""
    if trial.state == "failed":
        return "failed", _first_clause(trial.reason), None
    if trial.state == "gated":
        costs = [v for v in trial.violations if v.field != "max_metric_drop"]
        if trial.origin == "floor" or not costs:
            return "gate", _first_clause(trial.reason), None
        worst = max(costs, key=lambda v: v.excess / v.limit)
        return "gate", f"over {worst.field}", worst.excess / worst.limit
    if trial.state == "stopped" and trial.fidelity is None:
        return "gate", _first_clause(trial.reason), None
    if trial.state == "stopped":
        found = outranking.of(trial)
        if found.by is None:
            return f"rung {found.rung}", "the search ended before its turn", None
        return f"rung {found.rung}", "outranked", found.margin
    if trial.state == "completed":
        rung = 0 if trial.fidelity is None else trial.fidelity.rung
        if trial.violations:
            worst = max(trial.violations, key=lambda v: v.excess / max(v.limit, 1e-9))
            return f"rung {rung}", f"tuned to the end, but over {worst.field}", worst.excess / max(worst.limit, 1e-9)
        return f"rung {rung}", "tuned to the end, and another one was better", None
    return None


def _first_clause(reason: str | None) -> str:
    """`does not apply to this model: no residual block` without what comes after a second colon or a line's end."""
    return (reason or "no reason given").split("\n", 1)[0][:160]

"""Holds a measured candidate against the budget. Decisions come back as values that say by how much."""

from __future__ import annotations

from dataclasses import dataclass

from search.records import Baseline, Violation
from search.spec import Budget

BYTES_PER_MB = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known of a candidate. metric is None before it is scored; latency in ms."""

    latency_ms: float
    latency_ratio: float
    size_bytes: int
    metric: float | None = None


@dataclass(frozen=True)
class Limits:
    """The budget as two cost limits relative to the baseline. None: no limit."""

    latency_ratio: float | None
    size_ratio: float | None

    @classmethod
    def of(cls, budget: Budget, baseline: Baseline) -> Limits:
        latency = budget.latency_ratio
        if budget.latency_ms is not None:
            latency = budget.latency_ms / baseline.latency_ms
        size = budget.size_ratio
        if budget.size_mb is not None:
            size = budget.size_mb * BYTES_PER_MB / baseline.size_bytes
        return cls(latency, size)


def violations(budget: Budget, baseline: Baseline, measured: Measured) -> tuple[Violation, ...]:
    """Every field of the budget that `measured` misses, in the unit of that field; empty means feasible so far."""
    drop = None if measured.metric is None else baseline.metric - measured.metric
    values = {
        "latency_ms": measured.latency_ms,
        "latency_ratio": measured.latency_ratio,
        "size_mb": measured.size_bytes / BYTES_PER_MB,
        "size_ratio": measured.size_bytes / baseline.size_bytes,
        "max_metric_drop": drop,
    }
    missed = []
    for field, value in values.items():
        limit = getattr(budget, field)
        if limit is not None and value is not None and value > limit + 1e-12:
            missed.append(Violation(field=field, limit=limit, value=value, excess=value - limit))
    return tuple(missed)


def total_violation(missed: tuple[Violation, ...]) -> float:
    """Sum of relative excesses; the order among candidates that miss the budget. 0 when feasible."""
    return sum(v.excess / max(abs(v.limit), 1e-9) for v in missed)

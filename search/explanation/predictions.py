"""How well the cost model foretold what was then measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from search.records import Trial

PAIRS = 200  # shown, the newest; the errors are over all
LEARNT = 20  # candidates after which the model is held to have learnt


def predictions(trials: Sequence[Trial]) -> dict[str, Any] | None:
    """{count, latency: {median_error, late_median_error, worst_error}, size: …, pairs: [{trial, predicted, measured}]}.

    Errors are |predicted / measured - 1| of the ratios, before the measurement was known to the model. late: only of
    candidates that came after the first LEARNT, None if there were none. pairs: latency ratios. None where nothing was
    predicted.
    """
    found = [(t, t.predicted, t.latency) for t in trials if t.predicted is not None and t.latency is not None]
    if not found:
        return None
    latency = [abs(p.latency_ratio / m.ratio - 1) for _, p, m in found]
    size = [abs(p.size_ratio / t.size_ratio - 1) for t, p, _ in found if t.size_ratio]
    return {
        "count": len(found),
        "latency": _errors(latency),
        "size": _errors(size),
        "pairs": [
            {"trial": t.number, "predicted": round(p.latency_ratio, 5), "measured": round(m.ratio, 5)}
            for t, p, m in found[-PAIRS:]
        ],
    }


def _errors(errors: Sequence[float]) -> dict[str, float | None]:
    late = errors[LEARNT:]
    return {
        "median_error": round(median(errors), 4) if errors else None,
        "late_median_error": round(median(late), 4) if late else None,
        "worst_error": round(max(errors), 4) if errors else None,
    }

"""Latency over several fresh sessions: the figure to publish.

Within one session a ratio can be pinned down to a tenth of a percent, yet the next load of the same two files gives
another value: buffers lie elsewhere, caches collide differently (half a percent on ResNet-20). Whoever repeats the
measurement loads the files anew, so the interval given here is the one in which such a repetition falls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from compressors.latency import CONFIDENCE, LatencyResult, measure
from compressors.runtime import Array, Session

MINIMUM_SESSIONS = 3


def measure_sessions(
    load_candidate: Callable[[], Session],
    load_baseline: Callable[[], Session],
    inputs: Sequence[Array],
    *,
    sessions: int = 9,
    seconds: float = 0.3,
    seed: int = 0,
    quiet_baseline_ms: float | None = None,
) -> LatencyResult:
    """Measures `sessions` fresh pairs, `seconds` each; call it inside an exclusive `MeasurementSlot`.

    ratio: mean over sessions. ratio_ci: 95 % prediction interval for one further session,
    mean +- t(sessions - 1) * s * sqrt(1 + 1 / sessions) (Hahn & Meeker 1991, Statistical Intervals, section 4.7).
    Percentiles are medians over sessions; counts are sums. noisy: half of the sessions or more were.
    Raises ValueError for fewer than three sessions.
    """
    if sessions < MINIMUM_SESSIONS:
        raise ValueError(f"sessions={sessions}: a spread needs at least {MINIMUM_SESSIONS}")
    found = [
        measure(
            load_candidate(),
            load_baseline(),
            inputs,
            seconds=seconds,
            seed=seed + number,
            quiet_baseline_ms=quiet_baseline_ms,
        )
        for number in range(sessions)
    ]
    ratios = np.array([f.ratio for f in found])
    ratio = float(ratios.mean())
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, sessions - 1) * ratios.std(ddof=1) * np.sqrt(1 + 1 / sessions))
    return LatencyResult(
        p50_ms=_median([f.p50_ms for f in found]),
        p90_ms=_median([f.p90_ms for f in found]),
        baseline_p50_ms=_median([f.baseline_p50_ms for f in found]),
        baseline_p90_ms=_median([f.baseline_p90_ms for f in found]),
        ratio=ratio,
        ratio_ci=(ratio - reach, ratio + reach),
        rounds=sum(f.rounds for f in found),
        left_out=sum(f.left_out for f in found),
        runs=sum(f.runs for f in found),
        repeats=sum(f.repeats for f in found),
        noisy=2 * sum(f.noisy for f in found) >= sessions,
    )


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))

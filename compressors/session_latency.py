"""Latency over several fresh sessions: the figure to publish.

Within one session a ratio can be pinned down to a tenth of a percent, yet the next load of the same two files gives
another value: buffers lie elsewhere, caches collide differently (half a percent on ResNet-20). Whoever repeats the
measurement loads the files anew, so the interval given here is the one in which such a repetition falls.
"""

from __future__ import annotations

import time
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
    limit_s: float = 20.0,
    quiet_baseline_ms: float | None = None,
) -> LatencyResult:
    """Measures fresh pairs, `seconds` each, until `sessions` of them were quiet; call it inside an exclusive
    `MeasurementSlot`. After `limit_s` seconds, and at least `sessions` pairs, the quiet ones so far count.

    ratio: mean over sessions. ratio_ci: 95 % prediction interval for one further session,
    mean +- t(sessions - 1) * s * sqrt(1 + 1 / sessions) (Hahn & Meeker 1991, Statistical Intervals, section 4.7).
    Percentiles are medians over sessions; counts are sums. noisy: fewer than three sessions were quiet, so all count.
    Raises ValueError for fewer than three sessions.
    """
    if sessions < MINIMUM_SESSIONS:
        raise ValueError(f"sessions={sessions}: a spread needs at least {MINIMUM_SESSIONS}")
    played: list[LatencyResult] = []
    began = time.monotonic()
    while sum(not p.noisy for p in played) < sessions:
        if len(played) >= sessions and time.monotonic() - began > limit_s:
            break
        played.append(
            measure(
                load_candidate(),
                load_baseline(),
                inputs,
                seconds=seconds,
                seed=seed + len(played),
                quiet_baseline_ms=quiet_baseline_ms,
            )
        )
    quiet = [p for p in played if not p.noisy]
    found = quiet if len(quiet) >= MINIMUM_SESSIONS else played
    return _summary(found, noisy=len(quiet) < MINIMUM_SESSIONS)


def _summary(found: Sequence[LatencyResult], *, noisy: bool) -> LatencyResult:
    sessions = len(found)
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
        noisy=noisy,
    )


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))

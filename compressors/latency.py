"""Latency of a candidate against a baseline, measured in rounds that alternate the two.

A busy or throttled machine slows both down alike, so the ratio within a round holds where absolute times drift. The
interval of the ratio is read off the order statistics of the rounds' ratios: it needs no assumption about the noise
(distribution-free interval of a median, Le Boudec 2010, Performance Evaluation, theorem 2.1; paired rounds as in
Georges et al. 2007, "Statistically rigorous Java performance evaluation").
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from compressors.runtime import Array, Session

CONFIDENCE = 0.95
# Below six rounds the extreme order statistics do not reach 95 %: 1 - 2 * 0.5**5 = 0.9375, 1 - 2 * 0.5**6 = 0.969.
MINIMUM_ROUNDS = 6
NOISY_WIDTH = 0.06
_WARM_UP_RUNS = 3
_MINIMUM_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class LatencyResult:
    """Percentiles over all single runs, in ms per batch.

    ratio: median over rounds of (median candidate / median baseline) within the round; ratio_ci: its 95 % interval.
    rounds, runs: number of rounds, and of timed runs of the candidate. repeats: how often it was measured; 2 if the
    first interval was wide, the narrower result counts. noisy: the interval is still wider than 6 % of the ratio.
    """

    p50_ms: float
    p90_ms: float
    baseline_p50_ms: float
    baseline_p90_ms: float
    ratio: float
    ratio_ci: tuple[float, float]
    rounds: int
    runs: int
    repeats: int
    noisy: bool


def measure(
    candidate: Session,
    baseline: Session,
    inputs: Sequence[Array],
    *,
    rounds: int = 15,
    seconds: float = 0.25,
    seed: int = 0,
) -> LatencyResult:
    """Measures both sessions on `inputs` (one batch), in at least six rounds.

    rounds: wanted number. seconds: time to spend, spread over the rounds; slow models get fewer runs per round, then
    fewer rounds, but never less than 6 rounds of 3 runs each. A noisy result is repeated once. seed: decides which of
    the two goes first in a round. Call it inside an exclusive `MeasurementSlot`. Raises ValueError for rounds < 6 or
    seconds <= 0.
    """
    if rounds < MINIMUM_ROUNDS:
        raise ValueError(f"rounds={rounds}: an interval of {CONFIDENCE:.0%} needs at least {MINIMUM_ROUNDS}")
    if not seconds > 0:
        raise ValueError(f"seconds={seconds}: must be greater than 0")
    order = random.Random(seed)
    first = _measure_once(candidate, baseline, inputs, rounds, seconds, order, repeats=1)
    if not first.noisy:
        return first
    second = _measure_once(candidate, baseline, inputs, rounds, seconds, order, repeats=2)
    best = min(first, second, key=_relative_width)
    return LatencyResult(**{**vars(best), "repeats": 2})


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median of `ratios`: order statistics j and n + 1 - j, j the largest with
    P(Binomial(n, 1/2) < j) <= 2.5 %. Raises ValueError for fewer than six values."""
    count = len(ratios)
    if count < MINIMUM_ROUNDS:
        raise ValueError(f"{count} rounds: an interval of {CONFIDENCE:.0%} needs at least {MINIMUM_ROUNDS}")
    # Smallest k with cdf(k) >= 2.5 %; cdf(k - 1) < 2.5 %, so j = k is the largest rank that is safe.
    rank = int(binom.ppf((1 - CONFIDENCE) / 2, count, 0.5))
    ordered = sorted(ratios)
    return ordered[rank - 1], ordered[count - rank]


def _measure_once(
    candidate: Session,
    baseline: Session,
    inputs: Sequence[Array],
    rounds: int,
    seconds: float,
    order: random.Random,
    repeats: int,
) -> LatencyResult:
    pair = (candidate, baseline)
    with _no_collection():
        pace = max(sum(_warm_up(session, inputs) for session in pair), 1e-7)
        possible = int(seconds / (pace * _MINIMUM_RUNS))
        rounds = max(MINIMUM_ROUNDS, min(rounds, possible))
        runs = max(_MINIMUM_RUNS, int(seconds / (pace * rounds)))
        times: tuple[list[list[int]], list[list[int]]] = ([], [])
        for _ in range(rounds):
            for index in order.sample((0, 1), 2):
                times[index].append(_timed_runs(pair[index], inputs, runs))
    ratios = [float(np.median(c) / np.median(b)) for c, b in zip(*times, strict=True)]
    mine, theirs = (np.concatenate(side) / 1e6 for side in times)
    interval = ratio_interval(ratios)
    ratio = float(np.median(ratios))
    return LatencyResult(
        p50_ms=float(np.median(mine)),
        p90_ms=float(np.percentile(mine, 90)),
        baseline_p50_ms=float(np.median(theirs)),
        baseline_p90_ms=float(np.percentile(theirs, 90)),
        ratio=ratio,
        ratio_ci=interval,
        rounds=rounds,
        runs=rounds * runs,
        repeats=repeats,
        noisy=(interval[1] - interval[0]) > NOISY_WIDTH * ratio,
    )


def _relative_width(result: LatencyResult) -> float:
    return (result.ratio_ci[1] - result.ratio_ci[0]) / result.ratio


def _warm_up(session: Session, inputs: Sequence[Array]) -> float:
    """Seconds of one run once buffers exist and code is in the caches."""
    session.run(inputs)
    return float(np.median(_timed_runs(session, inputs, _WARM_UP_RUNS))) / 1e9


def _timed_runs(session: Session, inputs: Sequence[Array], runs: int) -> list[int]:
    """Nanoseconds of each run; one run before them is not timed, since the other model has just used the caches."""
    session.run(inputs)
    times = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        session.run(inputs)
        times.append(time.perf_counter_ns() - start)
    return times


@contextmanager
def _no_collection() -> Iterator[None]:
    """A garbage collection inside a timed run would be counted as the model's."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

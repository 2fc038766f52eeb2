"""Latency of a candidate against a baseline, measured in rounds that alternate the two.

A throttled machine slows both down alike, so the ratio within a round holds where absolute times drift. A neighbour on
the same physical core does not: on two hyperthreads, int8 lost 48 % and fp32 17 %. Each round is therefore framed by
a fixed loop of integer arithmetic; rounds in which it ran slow are left out. That choice knows nothing of the models,
so it favours neither.

The interval of the ratio is read off the order statistics of the rounds' ratios and needs no assumption about the noise
(distribution-free interval of a median, Le Boudec 2010, Performance Evaluation of Computer and Communication Systems,
theorem 2.1; medians and intervals over repeated rounds as in Georges et al. 2007, "Statistically rigorous Java
performance evaluation").
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from compressors.runtime import Array, Session

CONFIDENCE = 0.95
# Below six rounds the extreme order statistics do not reach 95 %: 1 - 2 * 0.5**5 = 0.9375, 1 - 2 * 0.5**6 = 0.969.
MINIMUM_ROUNDS = 6
NOISY_WIDTH = 0.06
_ATTEMPTS = 3
_WARM_UP_RUNS = 3
_MINIMUM_RUNS = 3
_QUIET_PACE = 1.15
_QUIET_BASELINE = 1.08
_PROBE_LOOPS = 200
# Rounds stretch when other processes take the core away; after this multiple of the wanted time no new one begins.
_OVERRUN = 2.0


@dataclass(frozen=True, kw_only=True)
class LatencyResult:
    """Percentiles over the single runs of all rounds that count, in ms per batch.

    ratio: median over rounds of (median candidate / median baseline) within the round; ratio_ci: its 95 % interval.
    rounds, runs: rounds that count, and timed runs of the candidate in them. left_out: rounds under foreign load.
    repeats: how often measuring started anew for want of quiet rounds or a narrow interval, the first included.
    noisy: the interval is wider than 6 % of the ratio, or there were no six quiet rounds and all had to count.
    """

    p50_ms: float
    p90_ms: float
    baseline_p50_ms: float
    baseline_p90_ms: float
    ratio: float
    ratio_ci: tuple[float, float]
    rounds: int
    left_out: int
    runs: int
    repeats: int
    noisy: bool


@dataclass(frozen=True)
class _Round:
    """Times in ns. pace: slowest of the three probes around the two models."""

    candidate: list[int]
    baseline: list[int]
    pace: int

    @property
    def ratio(self) -> float:
        return float(np.median(self.candidate) / np.median(self.baseline))


def measure(
    candidate: Session,
    baseline: Session,
    inputs: Sequence[Array],
    *,
    rounds: int = 21,
    seconds: float = 0.25,
    seed: int = 0,
    quiet_baseline_ms: float | None = None,
) -> LatencyResult:
    """Measures both sessions on `inputs` (one batch). Call it inside an exclusive `MeasurementSlot`.

    rounds: wanted number. seconds: time for them; slow models get fewer runs per round, then fewer rounds, but never
    less than 6 rounds of 3 runs each. seed: decides which of the two goes first in a round. quiet_baseline_ms: the
    baseline's median as known from a quiet machine; rounds that are 8 % above it are left out too.
    Repeats up to twice, adding rounds, while the result is noisy. Raises ValueError for rounds < 6 or seconds <= 0.
    """
    if rounds < MINIMUM_ROUNDS:
        raise ValueError(f"rounds={rounds}: an interval of {CONFIDENCE:.0%} needs at least {MINIMUM_ROUNDS}")
    if not seconds > 0:
        raise ValueError(f"seconds={seconds}: must be greater than 0")
    order = random.Random(seed)
    played: list[_Round] = []
    for attempt in range(1, _ATTEMPTS + 1):
        with _no_collection():
            played += _play(candidate, baseline, inputs, rounds, seconds, order)
        result = _summary(played, _quiet(played, quiet_baseline_ms), attempt)
        if not result.noisy:
            break
    return result


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median of `ratios`: order statistics j and n + 1 - j, j the largest with
    P(Binomial(n, 1/2) < j) <= 2.5 %. Raises ValueError for fewer than six values."""
    count = len(ratios)
    if count < MINIMUM_ROUNDS:
        raise ValueError(f"{count} rounds: an interval of {CONFIDENCE:.0%} needs at least {MINIMUM_ROUNDS}")
    rank, below = 0, 0.0
    while (below := below + math.comb(count, rank) / 2**count) <= (1 - CONFIDENCE) / 2:
        rank += 1
    ordered = sorted(ratios)
    return ordered[rank - 1], ordered[count - rank]


def _play(
    candidate: Session,
    baseline: Session,
    inputs: Sequence[Array],
    rounds: int,
    seconds: float,
    order: random.Random,
) -> list[_Round]:
    pair = (candidate, baseline)
    pace = max(sum(_warm_up(session, inputs) for session in pair), 1e-7)
    rounds = max(MINIMUM_ROUNDS, min(rounds, int(seconds / (pace * (_MINIMUM_RUNS + 1)))))
    runs = max(_MINIMUM_RUNS, int(seconds / (pace * rounds)) - 1)
    played: list[_Round] = []
    overdue = time.perf_counter_ns() + int(_OVERRUN * seconds * 1e9)
    for _ in range(rounds):
        if len(played) >= MINIMUM_ROUNDS and time.perf_counter_ns() > overdue:
            break
        times: list[list[int]] = [[], []]
        probes = [_probe()]
        for index in order.sample((0, 1), 2):
            times[index] = _timed_runs(pair[index], inputs, runs)
            probes.append(_probe())
        played.append(_Round(times[0], times[1], max(probes)))
    return played


def _quiet(played: Sequence[_Round], quiet_baseline_ms: float | None) -> list[_Round]:
    """The rounds in which the processor ran at the best pace seen."""
    best = min(item.pace for item in played)
    quiet = [item for item in played if item.pace <= best * _QUIET_PACE]
    if quiet_baseline_ms is not None:
        limit = quiet_baseline_ms * 1e6 * _QUIET_BASELINE
        quiet = [item for item in quiet if np.median(item.baseline) <= limit]
    return quiet


def _summary(played: Sequence[_Round], quiet: Sequence[_Round], repeats: int) -> LatencyResult:
    enough = len(quiet) >= MINIMUM_ROUNDS
    counted = quiet if enough else played
    ratios = [item.ratio for item in counted]
    interval, ratio = ratio_interval(ratios), float(np.median(ratios))
    mine = np.concatenate([item.candidate for item in counted]) / 1e6
    theirs = np.concatenate([item.baseline for item in counted]) / 1e6
    return LatencyResult(
        p50_ms=float(np.median(mine)),
        p90_ms=float(np.percentile(mine, 90)),
        baseline_p50_ms=float(np.median(theirs)),
        baseline_p90_ms=float(np.percentile(theirs, 90)),
        ratio=ratio,
        ratio_ci=interval,
        rounds=len(counted),
        left_out=len(played) - len(counted),
        runs=len(mine),
        repeats=repeats,
        noisy=not enough or interval[1] - interval[0] > NOISY_WIDTH * ratio,
    )


def _probe() -> int:
    """Nanoseconds of a fixed piece of integer arithmetic, best of three."""
    best = 0
    for _ in range(3):
        start = time.perf_counter_ns()
        total = 0
        for number in range(_PROBE_LOOPS):
            total += number
        elapsed = time.perf_counter_ns() - start
        best = min(best or elapsed, elapsed)
    return max(best, 1)


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

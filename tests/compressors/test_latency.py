"""Ratios of sessions whose true ratio is known."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from compressors import latency
from compressors.latency import MINIMUM_ROUNDS, measure, ratio_interval
from compressors.runtime import Array


class Clock:
    """Time that only sessions and probes spend."""

    def __init__(self) -> None:
        self.now = 0

    def perf_counter_ns(self) -> int:
        return self.now


class Timed:
    """A session whose runs take the given milliseconds in turn, times the load of the machine."""

    def __init__(self, clock: Clock, milliseconds: Sequence[float], load: Iterator[float] | None = None) -> None:
        self.clock, self.milliseconds, self.load = clock, itertools.cycle(milliseconds), load
        self.runs = 0

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        self.runs += 1
        factor = next(self.load) if self.load is not None else 1.0
        self.clock.now += int(next(self.milliseconds) * factor * 1e6)
        return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    monkeypatch.setattr(latency, "_probe", lambda: 1000)
    return clock


def test_the_ratio_and_percentiles_of_steady_sessions(clock: Clock) -> None:
    result = measure(Timed(clock, [1.0]), Timed(clock, [4.0]), [], rounds=9, seconds=1.0)
    assert result.ratio == pytest.approx(0.25)
    assert result.ratio_ci == pytest.approx((0.25, 0.25))
    assert (result.p50_ms, result.p90_ms, result.baseline_p50_ms) == pytest.approx((1.0, 1.0, 4.0))
    assert (result.rounds, result.repeats, result.left_out, result.noisy) == (9, 1, 0, False)


def test_drift_cancels_out(clock: Clock) -> None:
    """The machine slows down by a factor of three while it measures."""

    def drift() -> Iterator[float]:
        while True:
            yield 1.0 + clock.now / 5e8

    result = measure(Timed(clock, [1.0], drift()), Timed(clock, [2.0], drift()), [], rounds=21, seconds=1.0)
    assert result.ratio == pytest.approx(0.5, rel=0.02)
    assert result.ratio_ci[0] <= 0.5 <= result.ratio_ci[1]
    assert not result.noisy


def test_percentiles_see_the_tail(clock: Clock) -> None:
    candidate = Timed(clock, [1.0, 1.0, 1.0, 1.0, 3.0])
    result = measure(candidate, Timed(clock, [1.0]), [], rounds=10, seconds=1.0)
    assert result.p50_ms == pytest.approx(1.0)
    assert result.p90_ms == pytest.approx(3.0)


def test_rounds_under_foreign_load_are_left_out(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A neighbour slows the candidate more than the baseline in four rounds of ten."""
    rounds = itertools.count()
    state = {"busy": False}

    def probe() -> int:
        state["busy"] = next(rounds) // 3 % 10 >= 6
        return 1500 if state["busy"] else 1000

    monkeypatch.setattr(latency, "_probe", probe)

    def load(factor: float) -> Iterator[float]:
        while True:
            yield factor if state["busy"] else 1.0

    result = measure(Timed(clock, [1.0], load(1.5)), Timed(clock, [2.0], load(1.2)), [], rounds=20, seconds=1.0)
    assert result.ratio == pytest.approx(0.5)
    assert result.ratio_ci == pytest.approx((0.5, 0.5))
    assert result.left_out >= 8
    assert result.rounds == 20 - result.left_out


def test_a_baseline_slower_than_known_is_noise(clock: Clock) -> None:
    """Load that lasts throughout shows only against an earlier measurement."""
    candidate, baseline = Timed(clock, [1.5]), Timed(clock, [2.4])
    assert not measure(candidate, baseline, [], rounds=6, seconds=0.1).noisy
    result = measure(candidate, baseline, [], rounds=6, seconds=0.1, quiet_baseline_ms=2.0)
    assert result.noisy
    assert result.repeats == 3


def test_noise_is_measured_again_and_flagged(clock: Clock) -> None:
    rng = np.random.default_rng(0)
    wild = [float(t) for t in rng.lognormal(sigma=1.5, size=997)]
    result = measure(Timed(clock, wild), Timed(clock, [1.0]), [], rounds=6, seconds=0.05)
    assert result.noisy
    assert result.repeats == 3
    assert result.rounds == 18


def test_slow_models_get_few_runs_but_enough_rounds(clock: Clock) -> None:
    candidate, baseline = Timed(clock, [500.0]), Timed(clock, [900.0])
    result = measure(candidate, baseline, [], rounds=21, seconds=0.25)
    assert result.rounds == MINIMUM_ROUNDS
    assert result.runs == MINIMUM_ROUNDS * 3
    assert candidate.runs == baseline.runs < 35


def test_time_is_bounded_when_the_core_is_taken_away(clock: Clock) -> None:
    """Every run takes thirty times longer than in the warm-up."""
    load = itertools.chain([1.0] * 4, itertools.repeat(30.0))
    candidate, baseline = Timed(clock, [1.0], load), Timed(clock, [1.0])
    result = measure(candidate, baseline, [], rounds=21, seconds=0.2)
    assert MINIMUM_ROUNDS <= result.rounds < 15
    assert clock.now < 0.9e9, "21 such rounds take 2.5 s"


def test_time_is_bounded_for_fast_models() -> None:
    class Idle:
        def run(self, inputs: Sequence[Array]) -> list[Array]:
            sum(range(2000))
            return []

    start = time.perf_counter()
    result = measure(Idle(), Idle(), [], seconds=0.1)
    assert time.perf_counter() - start < 5
    assert 0.5 < result.ratio < 2.0
    assert result.runs >= MINIMUM_ROUNDS * 3


def test_order_depends_on_the_seed_only(clock: Clock) -> None:
    calls: dict[int, list[str]] = {}

    class Named:
        def __init__(self, name: str, seed: int) -> None:
            self.name, self.seed = name, seed

        def run(self, inputs: Sequence[Array]) -> list[Array]:
            calls.setdefault(self.seed, []).append(self.name)
            clock.now += 1_000_000
            return []

    for seed in (1, 1, 2):
        key = seed + 10 * len(calls)
        measure(Named("c", key), Named("b", key), [], rounds=12, seconds=0.05, seed=seed)
    first, second, third = calls.values()
    assert first == second
    assert first != third


def test_garbage_collection_is_off_while_timing_and_on_again(clock: Clock) -> None:
    seen: list[bool] = []

    class Watching(Timed):
        def run(self, inputs: Sequence[Array]) -> list[Array]:
            seen.append(gc.isenabled())
            return super().run(inputs)

    measure(Watching(clock, [1.0]), Timed(clock, [1.0]), [], rounds=6, seconds=0.05)
    assert seen
    assert not any(seen)
    assert gc.isenabled()


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for count in (6, 15, 21):
        hits = 0
        for _ in range(2000):
            low, high = ratio_interval(rng.lognormal(sigma=0.3, size=count).tolist())
            hits += low <= 1.0 <= high
        assert hits / 2000 > 0.945


def test_known_ranks() -> None:
    """Le Boudec 2010, table A.1: n = 10 takes ranks 2 and 9, n = 20 ranks 6 and 15."""
    assert ratio_interval([float(i) for i in range(1, 11)]) == (2.0, 9.0)
    assert ratio_interval([float(i) for i in range(20, 0, -1)]) == (6.0, 15.0)


def test_impossible_settings_are_refused(clock: Clock) -> None:
    session = Timed(clock, [1.0])
    with pytest.raises(ValueError, match="rounds=5"):
        measure(session, session, [], rounds=5)
    with pytest.raises(ValueError, match="seconds=0"):
        measure(session, session, [], seconds=0)
    with pytest.raises(ValueError, match="5 rounds"):
        ratio_interval([1.0] * 5)

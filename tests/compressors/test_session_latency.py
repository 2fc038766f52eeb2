"""Fresh sessions differ from each other; the interval must say by how much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compressors import latency, session_latency
from compressors.latency import LatencyResult, measure
from compressors.session_latency import measure_sessions
from tests.compressors.test_latency import Clock, Timed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency, "time", clock)
    monkeypatch.setattr(latency, "_probe", lambda: 1000)
    return clock


def test_a_further_session_falls_into_the_interval_as_often_as_it_says(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    steady = measure(Timed(clock, [0.4]), Timed(clock, [1.0]), [], seconds=0.05)

    def one_session(*_: object, **__: object) -> LatencyResult:
        return replace(steady, ratio=0.4 * (1 + 0.01 * generator.standard_normal()))

    monkeypatch.setattr(session_latency, "measure", one_session)
    inside = []
    for _ in range(2000):
        low, high = measure_sessions(lambda: Timed(clock, [1]), lambda: Timed(clock, [1]), [], sessions=9).ratio_ci
        inside.append(low <= one_session().ratio <= high)
    assert 0.93 <= float(np.mean(inside)) <= 0.97


def test_equal_sessions_give_a_point(clock: Clock) -> None:
    found = measure_sessions(lambda: Timed(clock, [0.3]), lambda: Timed(clock, [0.6]), [], sessions=3, seconds=0.05)
    assert found.ratio == pytest.approx(0.5)
    assert found.ratio_ci == pytest.approx((0.5, 0.5))
    assert (found.p50_ms, found.baseline_p50_ms) == pytest.approx((0.3, 0.6))


def test_two_sessions_have_no_spread(clock: Clock) -> None:
    with pytest.raises(ValueError, match="sessions=2"):
        measure_sessions(lambda: Timed(clock, [1]), lambda: Timed(clock, [1]), [], sessions=2)

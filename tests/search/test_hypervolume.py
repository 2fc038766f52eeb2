"""The hypervolume against cases worked out by hand, against Monte Carlo, and along a whole search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.coordinator import Coordinator
from search.events import Changed
from search.front import dominates
from search.hypervolume import Box, Point, hypervolume
from search.records import Baseline, Latency, Trial
from search.spec import Budget
from tests.search.simulation import Network, network, simulate, spec

BASELINE = Baseline(metric=0.8, latency_ms=2.0, size_bytes=1000, macs=1, parameters=1)
UNIT = st.integers(0, 8).map(lambda v: v / 8)


def trial(number: int = 0, *, metric: float = 0.8, ratio: float = 0.5, size: int = 500, feasible: bool = True) -> Trial:
    return Trial(
        number=number,
        state="completed",
        metric=metric,
        latency=Latency(p50_ms=1, p90_ms=1, ratio=ratio, ratio_ci=(0, 1), repeats=1),
        size_bytes=size,
        feasible=feasible,
    )


@pytest.mark.parametrize(
    ("points", "volume"),
    [
        ([], 0.0),
        ([(0.0, 0.0, 0.0)], 1.0),
        ([(0.5, 0.5, 0.5)], 0.125),
        ([(0.5, 0.5, 0.5), (0.5, 0.5, 0.5)], 0.125),
        ([(0.5, 0.5, 0.5), (0.75, 0.75, 0.75)], 0.125),
        ([(0.0, 0.5, 0.5), (0.5, 0.0, 0.5)], 0.25 + 0.25 - 0.125),
        ([(0.2, 0.2, 1.0), (0.2, 1.5, 0.2)], 0.0),
        ([(0.0, 0.0, 0.9), (0.9, 0.9, 0.0)], 0.1 + 0.01 * 0.9),
    ],
)
def test_by_hand(points: list[Point], volume: float) -> None:
    assert hypervolume(points) == pytest.approx(volume, abs=1e-12)


@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 5), (2, 30), (3, 200)])
def test_against_monte_carlo(seed: int, count: int) -> None:
    random = np.random.default_rng(seed)
    points = random.uniform(0.1, 1.1, (count, 3))
    samples = random.uniform(0, 1, (100_000, 3))
    dominated = np.zeros(len(samples), dtype=bool)
    for point in points:
        dominated |= (point <= samples).all(axis=1)
    share = dominated.mean()
    error = 5 * np.sqrt(max(share * (1 - share), 1e-6) / len(samples))
    assert hypervolume([(p[0], p[1], p[2]) for p in points]) == pytest.approx(share, abs=error)


@given(st.lists(st.tuples(UNIT, UNIT, UNIT), max_size=12))
def test_against_counted_cells(points: list[Point]) -> None:
    """Points on a grid of eighths dominate whole cells, which can be counted."""
    cells = (np.stack(np.meshgrid(*[np.arange(8)] * 3), axis=-1).reshape(-1, 3) + 0.5) / 8
    dominated = np.zeros(len(cells), dtype=bool)
    for point in points:
        dominated |= (np.array(point) <= cells).all(axis=1)
    assert hypervolume(points) == pytest.approx(dominated.sum() / 512, abs=1e-9)


@given(st.lists(st.tuples(UNIT, UNIT, UNIT), min_size=1, max_size=12))
def test_only_the_undominated_count(points: list[Point]) -> None:
    front = [p for p in points if not any(dominates(q, p) for q in points)]
    assert hypervolume(front) == pytest.approx(hypervolume(points), abs=1e-9)


def test_the_box_of_a_budget() -> None:
    box = Box.of(BASELINE, Budget(max_metric_drop=0.1))
    assert box.point(trial(metric=0.75)) == pytest.approx((0.5, 0.5, 0.5))
    assert box.point(trial(metric=0.85)) == pytest.approx((0.0, 0.5, 0.5)), "better than the baseline is no loss"
    assert box.point(trial(feasible=False)) is None
    assert box.volume([trial(metric=0.75), trial(ratio=0.1, feasible=False)]) == pytest.approx(0.125)
    assert box.volume([trial(metric=0.6)]) == 0.0, "more than the allowed loss"
    free = Box.of(BASELINE, Budget(latency_ratio=0.5))
    assert free.volume([trial(metric=0.4)]) == pytest.approx(0.125), "half of the metric, half of the costs"
    assert Box.of(BASELINE, Budget(max_metric_drop=0.0)).allowed_drop == 0.8


def test_it_is_recorded_along_a_search() -> None:
    coordinator = Coordinator(spec())
    outcome = simulate(coordinator, Network())
    trials = coordinator.book.all
    box = Box.of(network().baseline, spec().budget)
    assert coordinator.book.hypervolume == pytest.approx(box.volume(trials))
    assert 0 < box.volume(trials) < 1
    seen = [e.trial for e in outcome.events if isinstance(e, Changed)]
    times = [t.elapsed_s for t in seen]
    assert times == sorted(times, key=lambda t: t or 0.0)
    assert times[-1] == pytest.approx(outcome.now, abs=200)
    assert seen[-1].hypervolume == coordinator.book.hypervolume
    tuned = max(trials, key=lambda t: len(t.scores))
    assert [s.rung for s in tuned.scores] == [0, 1, 2, 3]
    assert tuned.scores[-1].metric == tuned.metric
    looks = [t for t in seen if t.state != "running" and t.metric is not None]
    assert sum(len(t.scores) for t in trials) == len(looks)
    assert all(Trial.from_json(t.to_json()) == t for t in trials)
    assert {t.number for t in trials if t.on_front} >= set(coordinator.book.front)

"""Which trial answers a job."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from search.choice import aims, nearest_miss, ranked
from search.hypervolume import Box
from search.records import Baseline, Latency, Trial, Violation
from search.spec import Budget


def trial(number: int, *, metric: float | None = None, ratio: float = 0.5, size: int = 100, over: float = 0.0) -> Trial:
    missed = (Violation(field="latency_ratio", limit=0.5, value=0.5 + over, excess=over),) if over else ()
    return Trial(
        number=number,
        state="stopped",
        metric=metric,
        latency=Latency(p50_ms=1, p90_ms=1, ratio=ratio, ratio_ci=(ratio, ratio), repeats=1),
        size_bytes=size,
        violations=missed,
        feasible=None if metric is None else not missed,
        macs=size,
    )


def test_objectives_rank_the_feasible() -> None:
    trials = [
        trial(0, metric=0.9, ratio=0.5, size=300),
        trial(1, metric=0.8, ratio=0.3, size=200),
        trial(2, metric=0.7, ratio=0.4, size=100),
        trial(3, metric=0.99, over=0.1),
        trial(4),
    ]
    assert [t.number for t in ranked(trials, "metric")] == [0, 1, 2]
    assert [t.number for t in ranked(trials, "latency")] == [1, 2, 0]
    assert [t.number for t in ranked(trials, "size")] == [2, 1, 0]


def test_ties_go_to_the_faster_then_the_earlier() -> None:
    trials = [trial(2, metric=0.9, ratio=0.4), trial(1, metric=0.9, ratio=0.4), trial(0, metric=0.9, ratio=0.5)]
    assert [t.number for t in ranked(trials, "metric")] == [1, 2, 0]


def test_nearest_miss_is_over_by_least() -> None:
    found = nearest_miss(
        [trial(0, metric=0.9, over=0.3), trial(1, metric=0.1, over=0.1), trial(2, metric=0.8, over=0.2)]
    )
    assert found is not None
    assert found.number == 1


def test_an_unscored_candidate_inside_the_limits_is_nearer_than_any_miss() -> None:
    found = nearest_miss([trial(0, metric=0.9, over=0.3), trial(1, size=50), trial(2, size=80)])
    assert found is not None
    assert found.number == 2, "of two, the larger model"


def test_nothing_measured_means_no_answer() -> None:
    assert nearest_miss([Trial(number=0, state="failed")]) is None


def test_the_best_compromise_stands_for_a_front() -> None:
    """Share of the allowed loss that is left, times latency saved, times size saved."""
    baseline = Baseline(metric=0.9, latency_ms=1.0, size_bytes=1000, macs=1, parameters=1)
    trials = [
        trial(0, metric=0.90, ratio=0.9, size=900),  # 1.0 x 0.1 x 0.1
        trial(1, metric=0.88, ratio=0.5, size=500),  # 0.6 x 0.5 x 0.5
        trial(2, metric=0.855, ratio=0.2, size=200),  # 0.1 x 0.8 x 0.8
    ]
    box = Box.of(baseline, Budget(max_metric_drop=0.05))
    assert [t.number for t in ranked(trials, "pareto", box)] == [1, 2, 0]
    assert [t.number for t in ranked(trials, "pareto")] == [0, 1, 2], "before the baseline is known"


def test_aims_of_a_sampler() -> None:
    found = replace(trial(0, metric=0.8, ratio=0.5, size=250), size_ratio=0.25)
    assert aims(found, "metric") == (0.8,)
    assert aims(found, "latency") == pytest.approx((math.log(2),))
    assert aims(found, "size") == pytest.approx((math.log(4),))
    assert aims(found, "pareto") == pytest.approx((0.8, math.log(2), math.log(4)))

"""Who is tuned further first, by objective: cases worked out by hand, and whole searches in virtual time."""

from __future__ import annotations

import pytest

from search.coordinator import Coordinator
from search.front import Front
from search.promotion_order import PromotionOrder
from search.records import Baseline, Fidelity, Latency, Score, Trial
from search.spec import Budget, Objective
from tests.search.simulation import Network, simulate, spec

BASELINE = Baseline(metric=0.9, latency_ms=1.0, size_bytes=1000, macs=1, parameters=1)
BUDGET = Budget(max_metric_drop=0.02)


def waiting(number: int, *metrics: float, ratio: float = 0.5) -> Trial:
    """metrics: one per rung so far."""
    return Trial(
        number=number,
        state="stopped",
        metric=metrics[-1],
        latency=Latency(p50_ms=ratio, p90_ms=ratio, ratio=ratio, ratio_ci=(ratio, ratio), repeats=9),
        size_bytes=int(1000 * ratio),
        size_ratio=ratio,
        fidelity=Fidelity(rung=len(metrics) - 1, samples=0),
        scores=tuple(Score(rung=r, samples=0, metric=m, feasible=True, elapsed_s=0.0) for r, m in enumerate(metrics)),
    )


def first_to_go_on(objective: Objective, at: list[Trial], others: list[Trial]) -> list[int]:
    return [t.number for t in PromotionOrder(objective, BASELINE, BUDGET).of(at, [*at, *others])]


def test_by_the_metric() -> None:
    assert first_to_go_on("metric", [waiting(0, 0.5), waiting(1, 0.7), waiting(2, 0.7)], []) == [1, 2, 0]


@pytest.mark.parametrize("objective", ["latency", "size"])
def test_the_smallest_that_can_be_expected_to_keep_the_allowed_loss(objective: Objective) -> None:
    at = [waiting(0, 0.88, ratio=0.5), waiting(1, 0.8, ratio=0.3), waiting(2, 0.5, ratio=0.1)]
    assert first_to_go_on(objective, at, []) == [0, 1, 2], "nothing is known: the loss is expected to stay"
    tenth_is_left = [waiting(3, 0.7, 0.88), waiting(4, 0.8, 0.89)]
    assert first_to_go_on(objective, at, tenth_is_left) == [1, 0, 2], "0.1 becomes 0.01; 0.4 becomes 0.04, too much"
    more_is_left = [waiting(3, 0.7, 0.8), waiting(4, 0.8, 0.85)]
    assert first_to_go_on(objective, at, more_is_left) == [0, 1, 2]


def test_a_front_is_tuned_along_its_length() -> None:
    at = [
        waiting(0, 0.88, ratio=0.5),
        waiting(1, 0.86, ratio=0.4),
        waiting(2, 0.7, ratio=0.1),
        waiting(3, 0.7, ratio=0.4),
    ]
    gone = [waiting(4, 0.87, 0.88, ratio=0.45)]
    order = first_to_go_on("pareto", at, gone)
    assert order[0] == 2, "the far end, since the near one has been tuned"
    assert order[-1] == 3, "beaten by trial 1"
    assert first_to_go_on("pareto", at, [])[0] == 0, "at first the best metric"


@pytest.mark.parametrize("objective", ["latency", "size"])
def test_a_search_for_the_smallest_model_goes_below_the_first_that_fits(objective: Objective) -> None:
    coordinator = Coordinator(spec(objective=objective, budget={"max_metric_drop": 0.02}))
    simulate(coordinator, Network())
    best = coordinator.book.ranked(objective)[0]
    assert best.latency is not None
    assert best.size_ratio is not None
    found = best.latency.ratio if objective == "latency" else best.size_ratio
    cheap = next(t for t in coordinator.book.of_origin("cheap"))
    assert cheap.latency is not None
    assert cheap.size_ratio is not None
    assert found < 0.8 * (cheap.latency.ratio if objective == "latency" else cheap.size_ratio)
    assert 0.9 - (best.metric or 0.0) <= 0.02
    tuned = [t for t in coordinator.book.all if len(t.scores) > 1]
    assert len({t.size_bytes for t in tuned}) > 3, "several amounts of compression are tuned"


def test_a_search_for_a_front_finds_a_long_one() -> None:
    coordinator = Coordinator(spec(objective="pareto", budget={"max_metric_drop": 0.05}))
    simulate(coordinator, Network())
    book = coordinator.book
    assert set(book.front) == set(Front.of(book.all).numbers)
    members = [book[n] for n in book.front]
    assert len(members) >= 4
    ratios = [t.latency.ratio for t in members if t.latency is not None]
    assert max(ratios) > 1.5 * min(ratios)
    chosen = book.ranked("pareto")[0]
    assert chosen.number in book.front
    assert all(0.9 - (t.metric or 0.0) <= 0.05 for t in members)

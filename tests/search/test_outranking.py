"""A candidate that was not tuned further is told why: outranked by whom and by how much, or nobody's fault."""

from __future__ import annotations

import pytest

from search.outranking import Outranking
from search.records import Fidelity, Score, Trial
from search.trial_book import TrialBook


def trial(number: int, *metrics: float, state: str = "stopped") -> Trial:
    scores = tuple(
        Score(rung=rung, samples=rung, metric=m, feasible=True, elapsed_s=0.0) for rung, m in enumerate(metrics)
    )
    return Trial(
        number=number,
        state=state,  # type: ignore[arg-type]
        metric=metrics[-1],
        fidelity=Fidelity(rung=len(metrics) - 1, samples=0),
        scores=scores,
    )


def test_by_the_least_of_those_that_went_on() -> None:
    others = [trial(1, 0.9, 0.95), trial(2, 0.6, 0.8), trial(3, 0.4, 0.7), trial(4, 0.99)]
    found = Outranking(others).of(trial(0, 0.5))
    assert (found.rung, found.by) == (0, 2)
    assert found.margin == pytest.approx(0.1)
    assert found.reason == "outranked at rung 0 by 0.1000: trial 2 went on from there"


def test_nobody_better_went_on() -> None:
    assert Outranking([trial(1, 0.4, 0.9), trial(2, 0.5, 0.9)]).of(trial(0, 0.5)).by is None
    assert Outranking([]).of(trial(0, 0.5, 0.6)).reason == "the search ended before its turn for rung 2"


def test_the_best_of_a_search_that_ends_early_is_not_called_outranked() -> None:
    book = TrialBook([trial(0, 0.9), trial(1, 0.5), trial(2, 0.7, 0.8, state="completed")])
    book.settle()
    assert book[0].reason == "the search ended before its turn for rung 1"
    assert book[1].reason == "outranked at rung 0 by 0.2000: trial 2 went on from there"
    assert book[2].reason is None

"""The last candidate: copies of the best one, averaged; a trial like any other."""

from __future__ import annotations

from dataclasses import replace

from compressors.recipe import Distillation, Recipe
from search.choice import ranked
from search.coordinator import Coordinator
from search.soup import add_soup, candidates
from search.work import Failed, Result, Scored, SoupWork
from tests.search.simulation import Network, simulate, spec


def searched() -> Coordinator:
    """Two tuned trials of one shape: the best one, and a copy of it with another learning rate."""
    coordinator = Coordinator(spec())
    simulate(coordinator, Network())
    best = ranked(coordinator.book.all, "metric")[0]
    recipe = Recipe.from_json(best.recipe or {})
    other = recipe.replaced(Distillation, replace(recipe.distillation or Distillation(), learning_rate=0.077))
    metric = (best.metric or 0) - 0.001
    coordinator.book.put(replace(best, number=coordinator.book.next_number, recipe=other.to_json(), metric=metric))
    return coordinator


def scored(work: SoupWork, metric: float) -> Scored:
    return Scored(
        trial=work.trial, rung=0, metric=metric, metric_error=0.001, samples=9, speed=None, size_bytes=1000,
        sha256="0" * 64, artifact="a", stages=(),
    )  # fmt: skip


def test_copies_are_averaged_into_a_trial_that_wins_by_its_metric() -> None:
    coordinator = searched()
    best = ranked(coordinator.book.all, "metric")[0]
    members = candidates(coordinator.spec, coordinator)
    assert members[0].number == best.number
    assert len(members) >= 2
    asked: list[SoupWork] = []

    def evaluate(work: SoupWork) -> Result:
        asked.append(work)
        return scored(work, 0.99)

    trial = add_soup(coordinator.spec, coordinator, evaluate, 100.0)
    assert trial is not None
    assert [number for number, _ in asked[0].members] == [m.number for m in members]
    assert ranked(coordinator.book.all, "metric")[0].number == trial.number
    assert (trial.origin, trial.state, trial.latency) == ("soup", "completed", best.latency)


def test_a_soup_that_fails_or_has_no_time_changes_nothing() -> None:
    coordinator = searched()
    before = coordinator.book.all
    assert add_soup(coordinator.spec, coordinator, lambda work: scored(work, 0.99), 1.0) is None
    assert add_soup(coordinator.spec, coordinator, lambda work: Failed(reason="died"), 100.0) is None
    assert coordinator.book.all == before


def test_one_architecture_alone_makes_no_soup() -> None:
    coordinator = Coordinator(spec())
    assert candidates(coordinator.spec, coordinator) == []

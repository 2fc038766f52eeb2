"""Whole searches in virtual time: what is tried, in which order, and how they end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search.choice import ranked
from search.coordinator import Coordinator
from search.events import Changed, Logged
from search.records import Trial
from search.work import Failed, GateWork, Result, ScoreWork, SensitivityWork, Work
from tests.search.simulation import Network, Outcome, simulate, spec


def run(network: Network | None = None, **changes: object) -> tuple[Coordinator, Outcome, Network]:
    network = network or Network()
    coordinator = Coordinator(spec(**changes))
    outcome = simulate(coordinator, network)
    coordinator.book.settle()
    return coordinator, outcome, network


def test_finds_a_feasible_candidate_within_its_seconds() -> None:
    coordinator, outcome, _ = run()
    best = ranked(coordinator.book.all, "metric")[0]
    assert best.feasible
    assert best.latency is not None
    assert best.latency.ratio <= 0.4
    assert best.metric is not None
    assert best.metric > 0.88
    assert outcome.now <= 600


def test_int8_alone_answers_an_easy_budget_at_once() -> None:
    coordinator, outcome, network = run(budget={"latency_ratio": 0.6})
    assert outcome.now < 10
    assert coordinator.book[0].state == "completed"
    assert {t.origin for t in coordinator.book.all} == {"cheap", "floor"}
    assert outcome.answer is not None
    assert "no candidate can be told from the uncompressed model" in outcome.answer.reason
    assert not network.tuned


def test_an_impossible_budget_is_told_from_the_floor() -> None:
    coordinator, outcome, network = run(budget={"latency_ratio": 0.01})
    assert outcome.answer is not None
    assert outcome.answer.impossible
    assert outcome.now < 10
    nearest = coordinator.nearest()
    assert nearest is not None
    assert nearest.origin == "floor"
    assert not network.tuned


def test_no_candidate_over_the_cost_limits_is_ever_tuned() -> None:
    coordinator, _, network = run(budget={"latency_ratio": 0.2, "size_ratio": 0.1})
    assert network.tuned
    for work in network.tuned:
        assert coordinator.book[work.trial].violations == ()


def test_nothing_stays_running_and_numbers_have_no_gap() -> None:
    coordinator, _, _ = run()
    trials = coordinator.book.all
    assert [t.number for t in trials] == list(range(len(trials)))
    assert not [t for t in trials if t.state == "running"]


def test_slots_are_kept_busy() -> None:
    _, outcome, _ = run()
    assert outcome.busy / (2 * outcome.now) > 0.9


def test_few_trials_are_respected() -> None:
    coordinator, _, _ = run(search={"max_trials": 5, "max_seconds": 600})
    assert len(coordinator.book) == 5
    assert ranked(coordinator.book.all, "metric")[0].feasible


def test_without_pruning_the_space_is_soon_exhausted() -> None:
    coordinator, outcome, _ = run(techniques=["quantization"])
    assert outcome.now < 30
    assert all(t.state == "gated" for t in coordinator.book.all)


@pytest.mark.parametrize("objective", ["latency", "size"])
def test_smallest_model_inside_an_allowed_drop(objective: str) -> None:
    coordinator, _, _ = run(objective=objective, budget={"max_metric_drop": 0.02})
    best = ranked(coordinator.book.all, objective)[0]  # type: ignore[arg-type]
    assert best.latency is not None
    assert best.latency.ratio < 0.5, "int8 alone would be 0.5"
    assert 0.9 - (best.metric or 0) <= 0.02


def test_same_seed_same_trials() -> None:
    first, second = run()[0], run()[0]
    assert [t.recipe for t in first.book.all] == [t.recipe for t in second.book.all]


@pytest.mark.parametrize("crash_at", [1.0, 5.0, 9.0, 60.0, 200.0, 320.0, 500.0])
def test_a_crash_loses_and_repeats_nothing(crash_at: float) -> None:
    network = Network()
    first = Coordinator(spec())
    lost = simulate(first, network, stop_at=crash_at)
    rows: dict[int, Trial] = {}
    for event in lost.events:
        if isinstance(event, Changed):
            rows[event.trial.number] = event.trial
    finished = {n: t for n, t in rows.items() if t.state != "running" and t.metric is not None}
    second = Coordinator(spec(), rows.values(), first.plan)
    assert second.planned >= len(rows), "progress is shown before the baseline is known again"
    outcome = simulate(second, network, start=lost.now)
    second.book.settle()
    assert outcome.answer is not None
    assert not outcome.answer.failed
    for number, trial in finished.items():
        after = second.book[number]
        assert after.metric is not None
        assert after.fidelity is not None and trial.fidelity is not None
        assert after.fidelity.rung >= trial.fidelity.rung
        repeated = [w for w in outcome.works if isinstance(w, GateWork) and w.trial == number]
        assert not repeated, "a measured trial is not measured again"
    assert not [t for t in second.book.all if t.state == "running"]
    assert ranked(second.book.all, "metric")[0].feasible


def test_a_paused_trial_is_taken_up_again() -> None:
    network = Network()
    first = Coordinator(spec())
    simulate(first, network, stop_at=100.0)
    first.book.interrupt("paused; goes on from its checkpoint")
    second = Coordinator(spec(), first.book.all, first.plan)
    simulate(second, network, start=100.0)
    assert not [t for t in second.book.all if t.reason == "paused; goes on from its checkpoint"]


def test_a_work_that_dies_is_tried_again_and_then_fails_alone() -> None:
    network = Network()
    died: list[Work] = []

    def evaluate(work: Work) -> tuple[Result, float]:
        if isinstance(work, ScoreWork) and work.trial == 3:
            died.append(work)
            return Failed(reason="the process running it died (signal 9)", retry=True), 1.0
        return network.evaluate(work)

    coordinator = Coordinator(spec())
    simulate(coordinator, network, evaluate=evaluate)
    assert len(died) == 3
    assert coordinator.book[3].state == "failed"
    assert "signal 9" in (coordinator.book[3].reason or "")
    assert ranked(coordinator.book.all, "metric")[0].feasible


def test_a_recipe_that_does_not_apply_is_no_failure() -> None:
    network = Network()

    def evaluate(work: Work) -> tuple[Result, float]:
        if isinstance(work, GateWork) and work.trial == 4:
            return Failed(reason="UnsupportedModel: no residual block", refused=True), 0.1
        return network.evaluate(work)

    coordinator = Coordinator(spec())
    outcome = simulate(coordinator, network, evaluate=evaluate)
    assert coordinator.book[4].state == "gated"
    assert coordinator.book[4].reason == "does not apply to this model: UnsupportedModel: no residual block"
    assert not [e for e in outcome.events if isinstance(e, Logged) and e.level == "error"]
    assert ranked(coordinator.book.all, "metric")[0].feasible


def test_a_failed_sensitivity_ends_the_job_with_its_reason() -> None:
    network = Network()

    def evaluate(work: Work) -> tuple[Result, float]:
        if isinstance(work, SensitivityWork):
            return Failed(reason="ValueError: no rows"), 1.0
        return network.evaluate(work)

    outcome = simulate(Coordinator(spec()), network, evaluate=evaluate)
    assert outcome.answer is not None
    assert outcome.answer.failed
    assert "no rows" in outcome.answer.reason


def test_a_model_without_groups_is_only_quantised() -> None:
    network = Network()
    network.profile = replace(
        network.profile,
        groups=(),
        shapes=tuple(replace(s, out_fixed=32, out_groups={}) for s in network.profile.shapes[:1]),
    )
    coordinator, _, _ = run(network)
    assert {t.origin for t in coordinator.book.all} <= {"cheap", "solver", "tpe", "random", "variant"}
    assert {s["technique"] for t in coordinator.book.all for s in (t.recipe or {"steps": []})["steps"]} == {
        "quantization"
    }
    assert not network.tuned

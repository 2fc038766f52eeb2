"""Which candidate is tuned further, and when: asynchronous successive halving within a plan. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from search.promotion_order import PromotionOrder
from search.records import Trial
from search.rungs import HALVING, RungPlan


@dataclass(frozen=True)
class Promotion:
    """Candidate `trial` goes on to `rung`, from `start` to `stop` samples seen in all."""

    trial: int
    rung: int
    start: int
    stop: int


def rung_of(trial: Trial) -> int:
    """-1: not scored yet."""
    return -1 if trial.fidelity is None else trial.fidelity.rung


def _waiting(trials: Collection[Trial], rung: int, towards: Mapping[int, int]) -> list[Trial]:
    """Scored at `rung`, within the cost limits, not on their way further."""
    return [t for t in trials if rung_of(t) == rung and t.number not in towards and _may_go_on(t)]


def _may_go_on(trial: Trial) -> bool:
    return trial.state == "stopped" and trial.metric is not None


def _reached(trials: Collection[Trial], rung: int, towards: Mapping[int, int]) -> int:
    """Trials that reached `rung` or are on their way to it."""
    return sum(1 for t in trials if max(rung_of(t), towards.get(t.number, -1)) >= rung)


def next_promotion(
    trials: Collection[Trial],
    towards: Mapping[int, int],
    plan: RungPlan,
    now: float,
    order: PromotionOrder,
    *,
    proposals_left: bool,
    untuned_tells: bool = True,
    to_beat: Mapping[int, float] | None = None,
) -> Promotion | None:
    """The promotion that a free slot should run next, or None: propose something new, or wait.

    towards: rung that each running trial is on its way to. order: who comes first of those that wait. Before
    `plan.top_starts` a candidate goes on when it is in the better half (rung 0) or third (rung 1) of those scored; from
    then on, the best few get all the time left. untuned_tells: whether scores without tuning say anything; where they
    do not, every candidate goes on to rung 1. to_beat: by rung, what the best of earlier rounds had there; nobody with
    less goes to the top. Cost: O(trials log trials), and what `order` costs.
    """
    if now < plan.top_starts:
        for rung in (1, 0):
            promotion = _halving(
                trials, towards, plan, rung, order, proposals_left=proposals_left, untuned_tells=untuned_tells
            )
            if promotion is not None:
                return promotion
        if proposals_left or towards:
            return None
    return _to_the_top(trials, towards, plan, order, to_beat or {})


def _halving(
    trials: Collection[Trial],
    towards: Mapping[int, int],
    plan: RungPlan,
    rung: int,
    order: PromotionOrder,
    *,
    proposals_left: bool,
    untuned_tells: bool,
) -> Promotion | None:
    reached = _reached(trials, rung + 1, towards)
    if reached >= plan.candidates[rung]:
        return None
    scored = sum(1 for t in trials if rung_of(t) >= rung and (_may_go_on(t) or t.number in towards))
    share = HALVING if rung else 2 if untuned_tells else 1
    more_to_come = proposals_left if rung == 0 else proposals_left or any(r == 1 for r in towards.values())
    if more_to_come and scored < share * (reached + 1):
        return None
    waiting = _waiting(trials, rung, towards)
    if not waiting:
        return None
    ordered = order.of(waiting, trials) if rung or untuned_tells else sorted(waiting, key=lambda t: t.number)
    return _promotion(ordered[0], rung + 1, plan)


def _to_the_top(
    trials: Collection[Trial],
    towards: Mapping[int, int],
    plan: RungPlan,
    order: PromotionOrder,
    to_beat: Mapping[int, float],
) -> Promotion | None:
    """The best tuned candidates, once nothing that could beat them is still on a lower rung."""
    if any(rung < plan.top for rung in towards.values()):
        return None
    if _reached(trials, plan.top, towards) >= plan.candidates[plan.top - 1]:
        return None
    tuned = [t for r in range(1, plan.top) for t in _waiting(trials, r, towards)]
    if not tuned and not to_beat:
        tuned = _waiting(trials, 0, towards)
    tuned = [t for t in tuned if (t.metric or 0.0) >= to_beat.get(rung_of(t), float("-inf"))]
    if not tuned:
        return None
    return _promotion(order.of(tuned, trials)[0], plan.top, plan)


def _promotion(trial: Trial, rung: int, plan: RungPlan) -> Promotion:
    start = trial.fidelity.samples if trial.fidelity is not None else 0
    return Promotion(trial.number, rung, start, max(plan.samples[rung - 1], start))

"""Who is tuned next, and for how long: rounds of successive halving until the seconds are used.

Time is handed in; trials are read, never written. Cost of a decision: O(trials log trials).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from search.outranking import metric_at
from search.profile import Profile
from search.promotion import Promotion, next_promotion
from search.promotion_order import PromotionOrder
from search.rungs import RungPlan, plan_rungs
from search.spec import JobSpec
from search.trial_book import TrialBook
from search.work import Scored

WORKING_SHARE = 0.75  # of the uncompressed metric
ROUND_SHARE = 0.1  # of all seconds; with less left there is no new round


class Rounds:
    """plan: of the present round; None before the first. profile: set when it is known, before the first decision.
    exhausted: set when there is nothing new to propose."""

    def __init__(self, spec: JobSpec, book: TrialBook, plan: RungPlan | None) -> None:
        self.plan = plan
        self.profile: Profile | None = None
        self.exhausted = False
        self._spec, self._book = spec, book
        self._speed: float | None = None
        self._score_seconds = 1.0

    def learn(self, result: Scored) -> None:
        """How long tuning and scoring take."""
        if result.speed is not None:
            self._speed = result.speed if self._speed is None else 0.5 * (self._speed + result.speed)
        self._score_seconds = next((s.seconds for s in result.stages if s.name == "score"), self._score_seconds)

    @property
    def deadline(self) -> float:
        """When tuning ends, so that confirming fits into max_seconds."""
        assert self.profile is not None
        seconds, rows = self._spec.search.max_seconds, self.profile.rows
        scoring = 2 * self._score_seconds * rows["test"] / max(rows["validation"], 1)
        return seconds - min(0.2 * seconds, 4.0 + scoring)

    @property
    def proposals_left(self) -> int:
        """How many more candidates this round asks for."""
        if self.plan is None or self.exhausted:
            return 0
        mine = (t for t in self._book.all if t.number >= self.plan.first)
        proposed = sum(1 for t in mine if t.knobs and t.state not in ("gated", "failed"))
        each = 2 if self._untuned_tells else 1
        return max(0, min(each * self.plan.candidates[0] - proposed, self._trials_left))

    def is_top(self, rung: int) -> bool:
        return self.plan is not None and rung >= self.plan.top

    def ends(self, rung: int) -> float:
        """When a run towards this rung of the present round must be over."""
        assert self.plan is not None
        return self.plan.end if rung == self.plan.top else self.plan.top_starts

    def next_step(self, now: float, *, tuning: bool) -> Promotion | Literal["propose"] | None:
        """What a free slot should do in the search stage. Changes nothing but making a round's plan.

        tuning: whether candidates are tuned at all.
        """
        plan = self.plan or self._begin(now)
        if now >= self.deadline:
            return None
        left = self.proposals_left
        if tuning:
            promotion = self._promotion(plan, now, proposals_left=left > 0)
            if promotion is not None:
                return promotion
            if not left and self._may_go_round(plan, now):
                plan = self._begin(now, since=self._book.next_number)
                left = self.proposals_left
        return "propose" if left and now < plan.top_starts else None

    def _promotion(self, plan: RungPlan, now: float, *, proposals_left: bool) -> Promotion | None:
        assert self.profile is not None
        return next_promotion(
            [t for t in self._book.all if t.number >= plan.first],
            {n: rung for n, rung in self._book.towards.items() if n >= plan.first},
            plan,
            now,
            PromotionOrder(self._spec.objective, self.profile.baseline, self._spec.budget),
            proposals_left=proposals_left,
            untuned_tells=self._untuned_tells,
            to_beat=self._to_beat(plan),
        )

    @property
    def _trials_left(self) -> int:
        return self._spec.search.max_trials - len(self._book)

    @property
    def _untuned_tells(self) -> bool:
        """Whether scores without tuning say who is worth tuning: not while the best network hardly works.

        Taken as given while the baseline is not known, which a coordinator that takes over has yet to learn again.
        """
        if self.profile is None:
            return True
        found = [m for t in self._book.all if t.knobs and (m := metric_at(t, 0)) is not None]
        whole = self.profile.baseline.metric
        return not found or whole <= 0 or max(found) >= WORKING_SHARE * whole

    def _to_beat(self, plan: RungPlan) -> Mapping[int, float]:
        """By rung, the metric that the best candidate of earlier rounds had when it was there."""
        if self._spec.objective != "metric" or not plan.first:
            return {}
        best = next((t for t in self._book.ranked("metric") if t.number < plan.first), None)
        found = {} if best is None else {rung: metric_at(best, rung) for rung in range(1, plan.top)}
        return {rung: metric for rung, metric in found.items() if metric is not None}

    def _may_go_round(self, plan: RungPlan, now: float) -> bool:
        """Whether a round has given all its tuning out and there are seconds, and candidates, for another one."""
        last_rung = all(rung >= plan.top for rung in self._book.towards.values())
        seconds = max(ROUND_SHARE * self.deadline, 4 * self._score_seconds)
        return last_rung and self._trials_left > 0 and not self.exhausted and self.deadline - now >= seconds

    def _begin(self, now: float, *, since: int = 0) -> RungPlan:
        """Plans a round. since: number of its first candidate."""
        assert self.profile is not None
        self.plan = plan_rungs(
            now=now,
            end=self.deadline,
            slots=self._spec.search.parallel,
            speed=self._speed or self.profile.samples_per_second,
            rows=self.profile.rows["tuning"],
            max_candidates=max(1, self._trials_left // 2),
            since=since,
        )
        return self.plan

"""Decides what a job does next. No clock, no processes, no storage: time and results are handed in, works and events
come out, so that every path can be driven from a test.

    profile -> cheap recipes and the floor -> sensitivity -> candidates in rungs -> answer
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from compressors.recipe import Recipe
from search.choice import nearest_miss
from search.events import BaselineKnown, Event
from search.hypervolume import Box
from search.profile import Profile
from search.promotion import Promotion
from search.proposals import Proposals
from search.records import Stage, Trial
from search.rounds import Rounds
from search.rungs import RungPlan
from search.sensitivity import FULL_LEVEL, ROUNDING_LEVELS, Entry, Sensitivity
from search.spec import JobSpec
from search.trial_book import INTERRUPTED, TrialBook
from search.trial_results import after_gate, after_score
from search.work import (
    Failed,
    Gated,
    GateWork,
    Profiled,
    ProfileWork,
    Result,
    Scored,
    ScoreWork,
    Sensed,
    SensitivityWork,
    Work,
)

RETRIES = 2  # of a work whose process died
NOISE = 0.5  # a loss of less than this many standard errors is none
PARENTS = 4  # of mutations
NO_TRIAL = -1  # the key under which retries of works without a trial are counted


@dataclass(frozen=True)
class Answer:
    """The search is over. reason: why it stopped. impossible: no candidate can meet the cost limits.

    failed: the job cannot go on at all.
    """

    reason: str
    impossible: bool = False
    failed: bool = False


class Coordinator:
    """trials: what earlier coordinators of this job left. plan: the rungs they had planned, if they got that far.
    worker: name of the process that runs the job, for the trials' rows.

    Drive it so: while `answer` is None, give each free slot the `next_work`, hand every result to `take`, and write
    `events` to the ledger. Cost per result: O(trials).
    """

    def __init__(
        self,
        spec: JobSpec,
        trials: Iterable[Trial] = (),
        plan: RungPlan | None = None,
        *,
        worker: str | None = None,
    ) -> None:
        self.spec = spec
        self.profile: Profile | None = None
        self.book = TrialBook(trials, worker=worker)
        self._rounds = Rounds(spec, self.book, plan)
        self._proposals: Proposals | None = None
        self._queue: deque[Work] = deque()
        self._unshaped: deque[int] = deque()  # interrupted before they were measured; gated once the solver can
        self._tries: dict[int, int] = {}
        self._sensed: dict[int, tuple[Entry, ...]] = {}
        self.common_stages: list[Stage] = []  # of works that belong to no trial
        self._parts = max(1, spec.search.parallel)
        self._parts_out = 0
        self._profiling = False
        self._errors: dict[int, float] = {}  # standard error of a trial's metric against the baseline's
        self._fatal: str | None = None

    def events(self) -> list[Event]:
        return self.book.take_events()

    # -- what to do next ------------------------------------------------------------------------------------------

    def next_work(self, now: float) -> Work | None:
        """The work for a free slot, or None: wait for results. now: seconds that the job has run in all."""
        if self._proposals is None:
            if self._profiling:
                return None
            self._profiling = True
            return ProfileWork()
        if self._queue:
            return self._queue.popleft()
        space = self._proposals.space
        if space.scope and self._parts_out < self._parts:
            self._parts_out += 1
            levels = ROUNDING_LEVELS if space.bits else FULL_LEVEL
            return SensitivityWork(part=self._parts_out - 1, parts=self._parts, levels=levels)
        if not self._ready:
            return None
        if self._unshaped:
            return self._gate_work(self.book[self._unshaped.popleft()])
        step = self._next_step(now)
        if isinstance(step, Promotion):
            return self._score_work(step.trial, step.rung, step.start, step.stop, self._rounds.ends(step.rung) - now)
        return self._propose() if step == "propose" else None

    def answer(self, now: float) -> Answer | None:
        """Why the search is over, or None while it is not."""
        if self._fatal is not None:
            return Answer(self._fatal, failed=True)
        if self.profile is None:
            return None
        good = self._as_good_as_it_gets()
        if good is not None or not self._cheap_settled:
            return good
        return self._impossible() or self._finished(now)

    def nearest(self) -> Trial | None:
        """The measured trial that misses the budget by least."""
        return nearest_miss(self.book.all)

    @property
    def planned(self) -> int:
        """Trials expected in all."""
        return max(1, len(self.book) + self._rounds.proposals_left)

    @property
    def plan(self) -> RungPlan | None:
        """Of the present round, to be kept for a coordinator that takes over."""
        return self._rounds.plan

    @property
    def stage(self) -> Literal["profile", "cheap", "sensitivity", "search"]:
        if self.profile is None:
            return "profile"
        if not self._cheap_settled:
            return "cheap"
        return "search" if self._ready else "sensitivity"

    @property
    def sensitivity(self) -> Sensitivity | None:
        return None if self._proposals is None else self._proposals.sensitivity

    # -- results ---------------------------------------------------------------------------------------------------

    def take(self, work: Work, result: Result) -> None:
        """Learns from a finished work."""
        if isinstance(result, Failed):
            self._failed(work, result)
        elif isinstance(result, Profiled):
            self._profiled(result)
        elif isinstance(result, Sensed):
            self._felt(result)
        elif isinstance(result, Gated):
            self._gated(result)
        elif isinstance(result, Scored):
            self._scored(result)

    def _profiled(self, result: Profiled) -> None:
        self.profile = self._rounds.profile = result.profile
        self.common_stages.append(result.stage)
        self._proposals = Proposals(self.spec, result.profile, history=result.history)
        self.book.measure_in(Box.of(result.profile.baseline, self.spec.budget))
        self.book.say(BaselineKnown(result.profile.baseline))
        for name, reason in result.profile.left_out.items():
            self.book.log("warning", f"group {name!r} is not pruned: {reason}")
        for trial in sorted(self.book.all, key=lambda t: t.number):
            self._resume(trial)
        present = [t.recipe for t in self.book.of_origin("cheap", "floor")]
        for origin, recipe in self._proposals.first_recipes():
            if not any(_same_shape(recipe, other) for other in present):
                number = self.book.next_number
                self.book.begin(Trial(number=number, state="running", origin=origin, recipe=recipe.to_json()), 0)
                self._queue.append(self._gate_work(self.book[number]))

    def _resume(self, trial: Trial) -> None:
        """The same trial again, at the stage it was in; checkpoints and caches spare what was already done."""
        assert self._proposals is not None
        self._proposals.replay(trial)
        self._proposals.tell(trial)
        if trial.state != "running" and not (trial.state == "stopped" and trial.reason in INTERRUPTED):
            return
        if trial.latency is None:
            self.book.begin(trial, 0)
            if self._proposals.needs_solver(trial):
                self._unshaped.append(trial.number)
            else:
                self._queue.append(self._gate_work(trial))
        elif trial.fidelity is None:
            self._queue.append(self._score_work(trial.number, 0, 0, 0))
        else:
            self.book.put(replace(trial, state="stopped", reason="interrupted; waits to be promoted again"))

    def _felt(self, result: Sensed) -> None:
        self._sensed[result.part] = result.entries
        self.common_stages.append(result.stage)
        if len(self._sensed) == self._parts:
            assert self._proposals is not None
            self._proposals.sensitivity = Sensitivity(e for part in self._sensed.values() for e in part)

    def _gated(self, result: Gated) -> None:
        assert self._proposals is not None
        self._proposals.note(result.recipe, result.points)
        trial = after_gate(self.book[result.trial], result, self.spec.budget, self._proposals.profile.baseline)
        reason = self._gate_reason(trial)
        if reason is not None:
            trial = replace(trial, state="gated", reason=reason, feasible=False if trial.violations else None)
            self._proposals.tell(trial)
            self.book.end(trial)
            return
        self.book.put(trial)
        self._queue.appendleft(self._score_work(trial.number, 0, 0, 0))

    def _gate_reason(self, trial: Trial) -> str | None:
        """Why a shaped candidate is not scored, or None."""
        if trial.origin == "floor":
            return "a floor: measured to see what the budget can reach"
        if trial.violations:
            worst = max(trial.violations, key=lambda v: v.excess / v.limit)
            return f"{worst.field} {worst.value:.4g} is over {worst.limit:.4g}: never tuned"
        same = [t.number for t in self.book.all if t.number != trial.number and t.recipe == trial.recipe]
        return f"the same recipe as trial {same[0]}" if same else None

    def _scored(self, result: Scored) -> None:
        assert self._proposals is not None
        trial = self.book[result.trial]
        self._errors[trial.number] = result.metric_error
        self._rounds.learn(result)
        tunable = bool(trial.knobs) and self._proposals.space.tuning
        done = not tunable or self._rounds.is_top(result.rung)
        trial = after_score(trial, result, self.spec.budget, self._proposals.profile.baseline, done=done)
        self._proposals.tell(trial)
        self.book.end(trial)

    def _failed(self, work: Work, result: Failed) -> None:
        name = type(work).__name__.removesuffix("Work").lower()
        detail = str((result.detail or {}).get("traceback", ""))
        number = work.trial if isinstance(work, GateWork | ScoreWork) else None
        key = NO_TRIAL if number is None else number
        self._tries[key] = self._tries.get(key, 0) + 1
        if result.retry and self._tries[key] <= RETRIES:
            self.book.log("warning", f"{name}: {result.reason}; tried again", number)
            if isinstance(work, ProfileWork):
                self._profiling = False
            else:
                self._queue.append(work)
            return
        if isinstance(work, GateWork) and result.refused:
            trial = replace(
                self.book[work.trial], state="gated", reason=f"does not apply to this model: {result.reason}"
            )
            self._drop(trial)
            return
        self.book.log("error", f"{name}: {result.reason}\n{detail}".rstrip(), number)
        if number is None:
            self._fatal = f"{name} failed: {result.reason}"
            return
        self._drop(replace(self.book[number], state="failed", reason=f"{name}: {result.reason}"))

    def _drop(self, trial: Trial) -> None:
        """Ends a trial that will have no metric."""
        if self._proposals is not None:
            self._proposals.tell(trial)
        self.book.end(trial)

    # -- the parts of a decision -----------------------------------------------------------------------------------

    def _impossible(self) -> Answer | None:
        """A limit that every floor misses is out of reach."""
        floors = self._floors
        if not floors or any(t.feasible for t in self.book.all):
            return None
        out_of_reach = set.intersection(*({v.field for v in t.violations} for t in floors))
        if not out_of_reach:
            return None
        return Answer(
            f"no candidate can meet {' and '.join(sorted(out_of_reach))}: the smallest shapes that the techniques "
            "allow miss it",
            impossible=True,
        )

    def _as_good_as_it_gets(self) -> Answer | None:
        """The best one's loss lies within the noise of the validation split: nothing is left to be found."""
        if self.spec.objective != "metric" or self.profile is None:
            return None
        for trial in self.book.ranked("metric")[:1]:
            loss, error = self.profile.baseline.metric - (trial.metric or 0.0), self._errors.get(trial.number)
            if error is not None and loss <= NOISE * error:
                return Answer(
                    f"trial {trial.number} loses {max(loss, 0.0):.4f} of the metric with a standard error of "
                    f"{error:.4f}: on this validation split no candidate can be told from the uncompressed model"
                )
        return None

    def _finished(self, now: float) -> Answer | None:
        if self.book.towards or self._queue or self._unshaped or not self._ready:
            return None
        if self._next_step(now) is not None:
            return None
        if now >= self._rounds.deadline:
            return Answer(f"max_seconds={self.spec.search.max_seconds:g} used")
        if len(self.book) >= self.spec.search.max_trials:
            return Answer(f"max_trials={self.spec.search.max_trials} reached and the best of them tuned")
        return Answer("every candidate worth its seconds has been tuned")

    def _next_step(self, now: float) -> Promotion | Literal["propose"] | None:
        assert self._proposals is not None
        return self._rounds.next_step(now, tuning=self._proposals.space.tuning)

    def _propose(self) -> Work | None:
        assert self._proposals is not None
        best = [t for t in self.book.ranked(self.spec.objective) if t.knobs][:PARENTS]
        trial = self._proposals.ask(self.book.next_number, best)
        if trial is None:
            self._rounds.exhausted = True
            return None
        self.book.begin(trial, 0)
        return self._gate_work(trial)

    def _gate_work(self, trial: Trial) -> GateWork:
        assert self._proposals is not None
        return self._proposals.gate_work(trial, self._floors, self.book.of_origin("cheap"))

    def _score_work(self, number: int, rung: int, start: int, stop: int, seconds: float | None = None) -> ScoreWork:
        trial = self.book[number]
        self.book.begin(trial, rung)
        return ScoreWork(
            trial=number,
            recipe=Recipe.from_json(trial.recipe or {}),
            rung=rung,
            start=start,
            stop=stop,
            seconds=None if seconds is None else max(seconds, 1.0),
            best=trial.metric if stop > start else None,
        )

    @property
    def _floors(self) -> list[Trial]:
        return [t for t in self.book.of_origin("floor") if t.latency is not None]

    @property
    def _cheap_settled(self) -> bool:
        """Cheap recipes and the floor have their results."""
        return self.profile is not None and all(t.state != "running" for t in self.book.of_origin("cheap", "floor"))

    @property
    def _ready(self) -> bool:
        """Everything that proposals need is there."""
        assert self._proposals is not None
        return self._cheap_settled and (self.sensitivity is not None or not self._proposals.space.scope)


def _same_shape(recipe: Recipe, document: Mapping[str, Any] | None) -> bool:
    other = Recipe.from_json(document or {}) if document is not None else None
    return other is not None and other.cost_key == recipe.cost_key

"""A made-up network whose costs and metrics follow formulas, driven through the coordinator in virtual time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from compressors.layer_costs import LayerShape
from compressors.recipe import Recipe
from search.coordinator import Answer, Coordinator
from search.cost_prediction import CostModel, PlanCosts
from search.events import Event
from search.layer_plan import LayerPlan, filled, plan_of
from search.profile import Group, Profile
from search.records import Baseline, Latency, Stage
from search.sensitivity import PRUNING_LEVELS, Entry
from search.solver import Solver
from search.spec import JobSpec
from search.work import (
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

ROWS = 10_000
SPEED = 400.0  # samples per second


def spec(**changes: object) -> JobSpec:
    document: dict[str, object] = {
        "model": "m",
        "data": {"train": "d", "inputs": ["image"], "target": "label"},
        "budget": {"latency_ratio": 0.4},
        "techniques": ["structured_pruning", "distillation", "quantization"],
        "search": {"max_seconds": 600, "parallel": 2, "max_trials": 40},
    }
    document.update(changes)
    return JobSpec.model_validate(document)


def network(groups: int = 6) -> Profile:
    """A chain of convolutions 3 -> 32 -> … -> 32 -> 10 with one group of 32 channels between each two."""
    names = [f"conv{i}" for i in range(groups)]
    shapes = [
        LayerShape(
            name=name,
            kind="Conv2d",
            kernel=9,
            positions=256,
            out_fixed=0,
            out_groups={name: 1},
            in_fixed=3 if i == 0 else 0,
            in_groups={} if i == 0 else {names[i - 1]: 1},
            bias=True,
        )
        for i, name in enumerate(names)
    ]
    shapes.append(
        LayerShape(
            name="head", kind="Linear", kernel=1, positions=1, out_fixed=10, in_fixed=0, in_groups={names[-1]: 1}
        )
    )
    return Profile(
        baseline=Baseline(metric=0.9, latency_ms=1.0, size_bytes=1_000_000, macs=10**7, parameters=250_000),
        baseline_p90_ms=1.1,
        groups=tuple(Group(name=n, size=32, layers=2, position=i / (groups - 1)) for i, n in enumerate(names)),
        shapes=tuple(shapes),
        left_out={},
        samples_per_second=SPEED,
        parity=0.0,
        fingerprint={"key": "made-up"},
        rows={"tuning": ROWS, "validation": 1000, "test": 1000},
    )


@dataclass
class Network:
    """Evaluates works by formula. overhead: share of latency that no pruning removes. sensitive: loss per group."""

    profile: Profile = field(default_factory=network)
    overhead: float = 0.05
    int8: float = 0.5
    metric_error: float = 0.002
    tuned: list[ScoreWork] = field(default_factory=list)

    def evaluate(self, work: Work) -> tuple[Result, float]:
        """(result, seconds it took)"""
        stage = Stage(name="made-up", seconds=1.0)
        match work:
            case ProfileWork():
                return Profiled(profile=self.profile, stage=stage), 3.0
            case SensitivityWork():
                entries = tuple(
                    Entry(
                        technique="structured_pruning",
                        name=g.name,
                        level=level,
                        loss=self.harm(i) * (1 - level) ** 2,
                        metric=0.5,
                    )
                    for i, g in enumerate(self.profile.groups)
                    for level in PRUNING_LEVELS
                )
                return Sensed(part=work.part, entries=entries[work.part :: work.parts], stage=stage), 4.0
            case GateWork():
                return self.gate(work), 1.0
            case ScoreWork():
                return self.score(work)
        raise AssertionError(work)

    def harm(self, index: int) -> float:
        """The first groups matter most."""
        return 2.0 / (1 + index)

    def cost(self, plan: LayerPlan) -> tuple[float, float]:
        """(latency ratio, size ratio)"""
        features, stored = PlanCosts(self.profile, integers=True).total(plan)
        return self.int8 * (self.overhead + (1 - self.overhead) * sum(features[1:])), 0.02 + stored

    def gate(self, work: GateWork) -> Gated:
        costs = PlanCosts(self.profile, integers=True)
        plan = plan_of(work.recipe, self.profile)
        if work.allocation is not None:
            assert work.limits is not None
            assert work.sensitivity is not None
            plan = (
                Solver(self.profile, work.sensitivity, integers=True, scope=work.scope)
                .solve(work.limits, CostModel.fit(work.points), work.allocation, start=work.start, pinned=work.pinned)
                .plan
            )
        ratio, size = self.cost(plan)
        return Gated(
            trial=work.trial,
            recipe=filled(work.recipe, plan, self.profile),
            latency=Latency(p50_ms=ratio, p90_ms=ratio, ratio=ratio, ratio_ci=(ratio, ratio), repeats=9),
            size_bytes=int(size * 1_000_000),
            macs=1,
            parameters=1,
            attempts=1,
            fits=True,
            points=(costs.point(plan, latency_ratio=ratio, size_ratio=size),),
            stages=(Stage(name="latency", seconds=0.3),),
        )

    def metric(self, recipe: Recipe, samples: int) -> float:
        keep = dict(recipe.pruning.keep) if recipe.pruning is not None else {}
        harm = sum(
            self.harm(i) * (1 - keep.get(g.name, g.size) / g.size) ** 2 for i, g in enumerate(self.profile.groups)
        )
        return float(0.9 - 0.04 * harm - 0.5 * min(harm, 1.0) * np.exp(-samples / 8000))

    def score(self, work: ScoreWork) -> tuple[Scored, float]:
        samples = work.stop - work.start
        seconds = samples / SPEED
        if work.seconds is not None and seconds > work.seconds:
            seconds = work.seconds
        if samples:
            self.tuned.append(work)
        seen = work.start + int(seconds * SPEED)
        return (
            Scored(
                trial=work.trial,
                rung=work.rung,
                metric=self.metric(work.recipe, seen),
                metric_error=self.metric_error,
                samples=seen,
                speed=SPEED if samples else None,
                size_bytes=int(self.cost(plan_of(work.recipe, self.profile))[1] * 1_000_000),
                sha256="0" * 64,
                artifact="a",
                stages=(Stage(name="score", seconds=1.0),),
            ),
            seconds + 2.0,
        )


@dataclass
class Outcome:
    answer: Answer | None
    now: float
    events: list[Event]
    busy: float
    works: list[Work]


def simulate(
    coordinator: Coordinator,
    network: Network,
    *,
    slots: int = 2,
    start: float = 0.0,
    stop_at: float = float("inf"),
    evaluate: Callable[[Work], tuple[Result, float]] | None = None,
) -> Outcome:
    """Runs until there is an answer, or until `stop_at`; works still running then are lost, as in a crash."""
    evaluate = evaluate or network.evaluate
    now, busy, order = start, 0.0, 0
    running: list[tuple[float, int, Work, Result]] = []
    events: list[Event] = []
    works: list[Work] = []
    coordinator.book.now = now
    answer = coordinator.answer(now)
    while answer is None and now < stop_at:
        while len(running) < slots and (work := coordinator.next_work(now)) is not None:
            result, seconds = evaluate(work)
            works.append(work)
            busy += seconds
            order += 1
            heapq.heappush(running, (now + seconds, order, work, result))
        events += coordinator.events()
        if running:
            now, _, work, result = heapq.heappop(running)
            coordinator.book.now = now
            coordinator.take(work, result)
        else:
            now += 1.0
        assert now < 100_000, "the search does not end"
        answer = coordinator.answer(now)
    events += coordinator.events()
    return Outcome(answer, now, events, busy, works)

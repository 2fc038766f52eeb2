"""Turns a sampler's knobs into candidates: what to shape, what to aim at, and the recipe that comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compressors.recipe import Distillation, Phase, Quantization, Recipe, Step, StructuredPruning
from search import space as knobs_of
from search.choice import aims
from search.cost_prediction import PlanCosts, Point
from search.feasibility import Limits
from search.layer_plan import filled, template_key
from search.mutations import MUTATION, Mutations, start_of
from search.profile import Profile
from search.records import Trial
from search.samplers import Sampler
from search.sensitivity import Sensitivity
from search.solver import Scope, floors
from search.spec import JobSpec
from search.variants import FURTHER, Variants, combined, further_levels, further_steps, key_of
from search.work import GateWork

# What takes its turn after the sampler's starts, over and over.
SAMPLED, MUTATED, VARIED = "sampler", "mutation", "variant"
TURNS = (SAMPLED, MUTATED, VARIED)
LATENCY_MARGIN = 0.985  # aim a little under the limit: the confirming measurement must hold too


class Proposals:
    """Not usable for proposals before `sensitivity` is set. history: measurements of earlier jobs, by template."""

    def __init__(
        self, spec: JobSpec, profile: Profile, *, history: Mapping[str, tuple[Point, ...]] | None = None
    ) -> None:
        self.spec, self.profile = spec, profile
        self.space = knobs_of.Space.of(spec, profile)
        self.sensitivity: Sensitivity | None = None
        self.points: dict[str, tuple[Point, ...]] = dict(history or {})
        self._sampler = Sampler(
            self.space,
            spec.search.strategy,
            seed=spec.search.seed,
            objectives=3 if spec.objective == "pareto" else 1,
        )
        self._costs = {integers: PlanCosts(profile, integers=integers) for integers in (False, True)}
        self._limits = Limits.of(spec.budget, profile.baseline)
        self._variants = Variants(further_levels(spec.allowed, tuple(spec.models)), seed=spec.search.seed)
        self._mutations = Mutations(profile, self.space.scope, seed=spec.search.seed)
        self._tried: set[str] = set()
        self._refused: set[str] = set()  # further steps that a candidate was gated with
        self._asked = 0

    def first_recipes(self) -> list[tuple[str, Recipe]]:
        """(origin, recipe): what may be the answer without any tuning, and the floors that any budget rests on."""
        quantization = (Quantization(),) if self.space.quantization else ()
        found = [("cheap", Recipe(quantization))] if quantization else []
        if self.space.scope:
            pruning = (StructuredPruning(),) if self.space.pruning else ()
            tuning: tuple[Step, ...] = ()
            if self.space.tuning:
                tuning = (Distillation(alpha=Distillation().alpha if self.space.distillation else 0.0),)
            template = Recipe((*pruning, *tuning, *quantization))
            for plan in floors(self.profile, self.space.scope):
                found.append(("floor", filled(template, plan, self.profile)))
        return found

    def ask(self, number: int, best: Sequence[Trial]) -> Trial | None:
        """A new trial, or None when there is nothing new: under strategy auto from the sampler, from a mutation and
        from a variant of the best ones so far by turns, else from the sampler alone. best: trials with knobs, best
        first."""
        self._asked += 1
        turn = SAMPLED
        if self.spec.search.strategy == "auto" and self._asked > self._sampler.starts:
            turn = TURNS[(self._asked - self._sampler.starts - 1) % len(TURNS)] if self.space.dimensions else VARIED
        order = (turn, *(t for t in TURNS if t != turn)) if self.spec.search.strategy == "auto" else (SAMPLED,)
        for kind in order:
            found = self._ask(kind, number, best)
            if found is not None:
                knobs, origin = found
                self._tried.add(key_of(knobs))
                return Trial(number=number, state="running", origin=origin, knobs=knobs)
        return None

    def _ask(self, kind: str, number: int, best: Sequence[Trial]) -> tuple[dict[str, Any], str] | None:
        if kind == SAMPLED:
            return self._sampler.ask(number)
        if kind == MUTATED:
            knobs = self._mutations.of(best, self._tried)
        elif self._variants:
            parent = dict(best[0].knobs) if best else self.space.default
            knobs = self._variants.of(parent, self._base(parent), self._tried, self._refused)
        else:
            return None
        return None if knobs is None else (knobs, kind)

    def replay(self, trial: Trial) -> None:
        """Takes up a trial that an earlier coordinator asked for."""
        if trial.knobs:
            self._tried.add(key_of(trial.knobs))
            self._asked += 1
            if FURTHER not in trial.knobs and MUTATION not in trial.knobs:
                self._sampler.replay(trial.number, trial.knobs)
        if trial.latency is not None and trial.size_ratio is not None and trial.recipe is not None:
            recipe = Recipe.from_json(trial.recipe)
            costs = self._costs[recipe.quantization is not None]
            point = costs.measured(recipe, latency_ratio=trial.latency.ratio, size_ratio=trial.size_ratio)
            self.note(recipe, (point,))

    def note(self, recipe: Recipe, points: tuple[Point, ...]) -> None:
        """Plans for this recipe's template that were measured, for the cost model."""
        key = template_key(recipe)
        self.points[key] = (*self.points.get(key, ()), *points)

    def tell(self, trial: Trial) -> None:
        """Once per trial: when it has been tuned first, or when it is known that it will not be."""
        if trial.state == "gated" and FURTHER in trial.knobs:
            self._refused.add(key_of({FURTHER: trial.knobs[FURTHER]}))
        if trial.number not in self._sampler.waiting:
            return
        if trial.state in ("gated", "failed"):
            self._sampler.tell(trial.number, None, {})
        elif trial.fidelity is not None and (trial.fidelity.rung >= 1 or trial.state == "completed"):
            excess = {v.field: v.excess for v in trial.violations}
            self._sampler.tell(trial.number, aims(trial, self.spec.objective), excess or {"budget": 0.0})

    def gate_work(self, trial: Trial, at_floor: list[Trial], cheap: list[Trial]) -> GateWork:
        """From the trial's recipe if it has one (cheap, floor), else from its knobs."""
        if trial.recipe is not None:
            return GateWork(trial=trial.number, recipe=Recipe.from_json(trial.recipe))
        template = combined(self._base(trial.knobs), further_steps(trial.knobs))
        scope = self._scope(template, further_steps(trial.knobs))
        if not scope:
            return GateWork(trial=trial.number, recipe=template)
        key = template_key(template)
        start, pinned = start_of(trial.knobs)
        return GateWork(
            trial=trial.number,
            recipe=template,
            allocation=knobs_of.allocation(trial.knobs),
            scope=scope,
            start=start,
            pinned=pinned,
            limits=self._aim(trial, at_floor, cheap),
            points=self.points.get(key) or next(iter(self.points.values()), ()),
            sensitivity=self.sensitivity,
        )

    def _scope(self, template: Recipe, further: Sequence[Step]) -> Scope:
        """What of this template the solver may decide: nothing of another network, bits only of layers that keep their
        names and that static integers are for."""
        if any(s.phase is Phase.STUDENT for s in template.steps):
            return Scope(keep=False)
        mine = self.space.scope
        reshaped = any(s.phase is Phase.SHAPE for s in further)
        return Scope(
            keep=mine.keep and template.pruning is not None,
            bits=mine.bits and template.quantization is not None and not reshaped,
            drop=mine.drop,
        )

    def needs_solver(self, trial: Trial) -> bool:
        """Whether gating this trial needs sensitivity and measured points."""
        return trial.recipe is None and bool(self.space.scope)

    def _base(self, knobs: Mapping[str, Any]) -> list[Step]:
        """What the sampler's knobs say, but for what the solver decides."""
        steps: list[Step] = []
        if self.space.pruning:
            steps.append(StructuredPruning(importance=knobs["importance"]))
        if self.space.tuning:
            steps.append(knobs_of.tuning(knobs))
        quantization = knobs_of.quantization(knobs)
        if quantization is not None:
            steps.append(quantization)
        return steps

    def _aim(self, trial: Trial, at_floor: list[Trial], cheap: list[Trial]) -> Limits:
        """What a candidate is fitted to: the budget, or a point between the floor and the budget (or int8 alone)."""
        latency, size = self._limits.latency_ratio, self._limits.size_ratio
        if latency is not None:
            latency *= LATENCY_MARGIN
        if "aim" not in trial.knobs:
            return Limits(latency, size)
        aim = float(trial.knobs["aim"])
        fastest = min((t.latency.ratio for t in at_floor if t.latency is not None), default=1.0)
        smallest = min((t.size_ratio for t in at_floor if t.size_ratio is not None), default=1.0)
        loosest_latency = min((t.latency.ratio for t in cheap if t.latency is not None), default=1.0)
        loosest_size = min((t.size_ratio for t in cheap if t.size_ratio is not None), default=1.0)
        if self.spec.objective in ("latency", "pareto"):
            latency = fastest ** (1 - aim) * min(latency or 9.0, loosest_latency) ** aim
        if self.spec.objective in ("size", "pareto"):
            size = smallest ** (1 - aim) * min(size or 9.0, loosest_size) ** aim
        return Limits(latency, size)

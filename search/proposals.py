"""Turns a sampler's knobs into candidates: what to shape, what to aim at, and the recipe that comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressors.recipe import Distillation, Quantization, Recipe, Step, StructuredPruning
from search import space as knobs_of
from search.cost_prediction import Point, ShapeCosts
from search.feasibility import Limits
from search.profile import Profile
from search.records import Trial
from search.sampler import Sampler
from search.sensitivity import Sensitivity
from search.solver import floors
from search.spec import JobSpec
from search.templates import kept, stores_padded_channels, template_key
from search.variants import FURTHER, Variants, combined, further_levels, further_steps, key_of
from search.work import GateWork

VARIANT_EVERY = 3  # proposals; the others are the sampler's
LATENCY_MARGIN = 0.985  # aim a little under the limit: the confirming measurement must hold too


class Proposals:
    """Not usable for proposals before `sensitivity` is set."""

    def __init__(self, spec: JobSpec, profile: Profile) -> None:
        self.spec, self.profile = spec, profile
        self.space = knobs_of.Space.of(spec, can_prune=bool(profile.groups))
        self.sensitivity: Sensitivity | None = None
        self._points: dict[str, tuple[Point, ...]] = {}
        self._sampler = Sampler(self.space, spec.search.strategy, seed=spec.search.seed)
        self._limits = Limits.of(spec.budget, profile.baseline)
        self._variants = Variants(further_levels(spec.allowed, tuple(spec.models)), seed=spec.search.seed)
        self._tried: set[str] = set()
        self._asked = 0

    def first_recipes(self) -> list[tuple[str, Recipe]]:
        """(origin, recipe): what may be the answer without any tuning, and the floors that any budget rests on."""
        quantization = (Quantization(),) if self.space.quantization else ()
        found = [("cheap", Recipe(quantization))] if quantization else []
        if self.space.pruning:
            tuning = Distillation(alpha=Distillation().alpha if self.space.distillation else 0.0)
            for shape in floors(self.profile):
                keep = {n: c for n, c in shape.items() if c < self.profile.sizes[n]}
                found.append(("floor", Recipe((StructuredPruning(keep=keep), tuning, *quantization))))
        return found

    def ask(self, number: int, best: Trial | None) -> Trial | None:
        """A new trial, or None when there is nothing new: from the sampler, and every third time (always where the
        sampler has no knobs) a variant of the best one so far."""
        self._asked += 1
        solver_starts = self._asked <= self._sampler.starts
        if self._variants and not solver_starts and (not self.space.dimensions or self._asked % VARIANT_EVERY == 0):
            varied = self._variant(number, best)
            if varied is not None:
                return varied
        asked = self._sampler.ask(number)
        if asked is None:
            return self._variant(number, best)
        knobs, origin = asked
        self._tried.add(key_of(knobs))
        return Trial(number=number, state="running", origin=origin, knobs=knobs)

    def _variant(self, number: int, best: Trial | None) -> Trial | None:
        knobs = dict(best.knobs) if best is not None and best.knobs else self.space.default
        varied = self._variants.of(knobs, self._base(knobs), self._tried)
        if varied is None:
            return None
        self._tried.add(key_of(varied))
        return Trial(number=number, state="running", origin="variant", knobs=varied)

    def replay(self, trial: Trial) -> None:
        """Takes up a trial that an earlier coordinator asked for."""
        if trial.knobs:
            self._tried.add(key_of(trial.knobs))
            self._asked += 1
            if FURTHER not in trial.knobs:
                self._sampler.replay(trial.number, trial.knobs)
        if trial.latency is not None and trial.size_ratio is not None and trial.recipe is not None:
            recipe, sizes = Recipe.from_json(trial.recipe), self.profile.sizes
            costs = ShapeCosts(self.profile.shapes, sizes, aligned=stores_padded_channels(recipe))
            point = costs.point(kept(recipe, sizes), latency_ratio=trial.latency.ratio, size_ratio=trial.size_ratio)
            self.note(recipe, (point,))

    def note(self, recipe: Recipe, points: tuple[Point, ...]) -> None:
        """Shapes of this recipe's template that were measured, for the cost model."""
        key = template_key(recipe)
        self._points[key] = (*self._points.get(key, ()), *points)

    def tell(self, trial: Trial) -> None:
        """Once per trial: when it has been tuned first, or when it is known that it will not be."""
        if trial.number not in self._sampler.waiting:
            return
        if trial.state in ("gated", "failed"):
            self._sampler.tell(trial.number, None, {})
        elif trial.fidelity is not None and (trial.fidelity.rung >= 1 or trial.state == "completed"):
            excess = {v.field: v.excess for v in trial.violations}
            self._sampler.tell(trial.number, trial.metric, excess or {"budget": 0.0})

    def gate_work(self, trial: Trial, at_floor: list[Trial], cheap: list[Trial]) -> GateWork:
        """From the trial's recipe if it has one (cheap, floor), else from its knobs."""
        if trial.recipe is not None:
            return GateWork(trial=trial.number, recipe=Recipe.from_json(trial.recipe))
        template = combined(self._base(trial.knobs), further_steps(trial.knobs))
        if template.pruning is None:
            return GateWork(trial=trial.number, recipe=template)
        key = template_key(template)
        return GateWork(
            trial=trial.number,
            recipe=template,
            allocation=knobs_of.allocation(trial.knobs),
            limits=self._aim(trial, at_floor, cheap),
            points=self._points.get(key) or next(iter(self._points.values()), ()),
            sensitivity=self.sensitivity,
        )

    def needs_solver(self, trial: Trial) -> bool:
        """Whether gating this trial needs sensitivity and measured points."""
        return trial.recipe is None and self.space.pruning

    def _base(self, knobs: Mapping[str, Any]) -> list[Step]:
        """What the sampler's knobs say, but for the channel counts."""
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

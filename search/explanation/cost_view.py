"""The cost model and the solver as the explanation sees them: the one place that knows how they are built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressors.recipe import Recipe
from search.cost_prediction import CostModel, PlanCosts
from search.feasibility import Limits
from search.layer_plan import full_plan, plan_of, template_key
from search.profile import Profile
from search.records import Trial
from search.sensitivity import Sensitivity
from search.solver import Allocation, Scope, Solver

CHANNELS = Scope()


@dataclass(frozen=True)
class Foretold:
    """A plan that was not built. harm: sum of the losses (nats) of its single decisions."""

    latency_ratio: float
    size_ratio: float
    harm: float


class CostView:
    """The cost model of recipes of one kind (`like`), fitted to all measurements of the job. scope: what its solver may
    decide."""

    def __init__(self, profile: Profile, trials: Sequence[Trial], like: Recipe, scope: Scope = CHANNELS) -> None:
        self._profile, self._scope = profile, scope
        self._integers = like.quantization is not None
        self._costs = PlanCosts(profile, integers=self._integers)
        self._of: Sensitivity | None = None
        self._made: Solver | None = None
        key = template_key(like)
        points = [
            self._costs.measured(recipe, latency_ratio=trial.latency.ratio, size_ratio=trial.size_ratio)
            for trial in trials
            if trial.recipe is not None and trial.latency is not None and trial.size_ratio is not None
            if template_key(recipe := Recipe.from_json(trial.recipe)) == key
        ]
        self.measurements = len(points)
        self._model = CostModel.fit(points) if points else None

    def work_before(self) -> tuple[float, ...]:
        """Each layer's share of the uncompressed model's work, in the order of `Profile.shapes`."""
        full = full_plan(self._profile)
        return tuple(self._costs.layer(i, full)[2] for i in range(len(self._profile.shapes)))

    def latency_after(self, recipe: Recipe) -> tuple[float, ...] | None:
        """Each layer's part in the predicted latency ratio; None before anything like it was measured."""
        if self._model is None:
            return None
        plan = plan_of(recipe, self._profile)
        layers = (self._costs.layer(i, plan) for i in range(len(self._profile.shapes)))
        return tuple(self._model.layer_latency(kind, calls, work) for kind, calls, work, _ in layers)

    def solve(self, sensitivity: Sensitivity, limits: Limits) -> Foretold | None:
        """The solver's plan within these limits, sensitivity taken at its word; None if there is none."""
        if self._model is None or not self._scope:
            return None
        found = self._solver(sensitivity).solve(limits, self._model, Allocation())
        return Foretold(found.latency_ratio, found.size_ratio, found.harm) if found.fits else None

    def harm(self, sensitivity: Sensitivity, recipe: Recipe) -> float:
        """What sensitivity foretells of a recipe (nats)."""
        return self._solver(sensitivity).harm_of(plan_of(recipe, self._profile), Allocation())

    def _solver(self, sensitivity: Sensitivity) -> Solver:
        """Made once: it orders the layers of the whole model."""
        if self._of is not sensitivity or self._made is None:
            self._of = sensitivity
            self._made = Solver(self._profile, sensitivity, integers=self._integers, scope=self._scope)
        return self._made

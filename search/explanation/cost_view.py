"""The cost model and the solver as the explanation sees them: the one place that knows how they are built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressors.recipe import Recipe
from search.cost_prediction import CostModel, ShapeCosts
from search.feasibility import Limits
from search.profile import Profile
from search.records import Trial
from search.sensitivity import Sensitivity
from search.solver import Allocation, Solver
from search.templates import kept, stores_padded_channels, template_key


@dataclass(frozen=True)
class Foretold:
    """A plan that was not built. harm: sum of the losses (nats) of its single decisions."""

    latency_ratio: float
    size_ratio: float
    harm: float


class CostView:
    """The cost model of recipes of one kind (`like`), fitted to all measurements of the job."""

    def __init__(self, profile: Profile, trials: Sequence[Trial], like: Recipe) -> None:
        self._profile = profile
        self._aligned = stores_padded_channels(like)
        self._costs = ShapeCosts(profile.shapes, profile.sizes, aligned=self._aligned)
        points = [
            self._costs.point(
                kept(recipe, profile.sizes), latency_ratio=trial.latency.ratio, size_ratio=trial.size_ratio
            )
            for trial in trials
            if trial.recipe is not None and trial.latency is not None and trial.size_ratio is not None
            if template_key(recipe := Recipe.from_json(trial.recipe)) == template_key(like)
        ]
        self.measurements = len(points)
        self._model = CostModel.fit(points) if points else None

    def work_before(self) -> tuple[float, ...]:
        """Each layer's share of the uncompressed model's work, in the order of `Profile.shapes`."""
        return tuple(self._costs.layer(i, self._profile.sizes)[0] for i in range(len(self._profile.shapes)))

    def latency_after(self, recipe: Recipe) -> tuple[float, ...] | None:
        """Each layer's part in the predicted latency ratio; None before anything like it was measured."""
        if self._model is None:
            return None
        keep = kept(recipe, self._profile.sizes)
        base = self._model.latency_ratio(0.0)
        return tuple(
            self._model.latency_ratio(self._costs.layer(i, keep)[0]) - base for i in range(len(self._profile.shapes))
        )

    def solve(self, sensitivity: Sensitivity, limits: Limits) -> Foretold | None:
        """The solver's plan within these limits, sensitivity taken at its word; None if there is none."""
        if self._model is None or not self._profile.groups:
            return None
        solver = Solver(self._profile, sensitivity, aligned=self._aligned)
        found = solver.solve(limits, self._model, Allocation())
        if not found.fits:
            return None
        harm = sum(sensitivity.pruning_loss(n, c / self._profile.sizes[n]) for n, c in found.keep.items())
        return Foretold(found.latency_ratio, found.size_ratio, harm)

    def harm(self, sensitivity: Sensitivity, recipe: Recipe) -> float:
        """What sensitivity foretells of a recipe (nats)."""
        keep = kept(recipe, self._profile.sizes)
        return sum(sensitivity.pruning_loss(n, keep[n] / size) for n, size in self._profile.sizes.items())

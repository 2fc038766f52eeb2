"""Local refinement: a good candidate with one or two decisions taken otherwise, perhaps with other tuning.

The knobs of a sampler move all layers together; a mutation moves single ones, which no few knobs can express. The
changed decisions are pinned, and the solver repairs the rest of the plan to the budget.
Cost of a proposal: O(decisions).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from compressors.recipe import Recipe
from search.layer_plan import Decision, Kind, LayerPlan, plan_of
from search.profile import Profile
from search.records import Trial
from search.solver import Scope, Subject, values
from search.variants import key_of

MUTATION = "mutation"  # the knob that holds the plan to start from and what is pinned
FINEST = 4  # channel multiple of a mutation
TRIES = 20
KEEP_TUNING = 0.5  # probability
RATE_FACTOR = 1.5
RATES = (0.003, 0.1)


class Mutations:
    """Deterministic for a seed."""

    def __init__(self, profile: Profile, scope: Scope, *, seed: int) -> None:
        self._profile, self._scope = profile, scope
        self._random = np.random.default_rng((seed, 11))

    def of(self, parents: Sequence[Trial], tried: Container[str]) -> dict[str, Any] | None:
        """Knobs of a new candidate, or None if none was found. parents: shaped trials with knobs, best first; each is
        chosen half as often as the one before it. tried: by `key_of`."""
        if not parents or not self._scope:
            return None
        for _ in range(TRIES):
            parent = parents[min(int(self._random.geometric(0.5)) - 1, len(parents) - 1)]
            knobs = self._mutated(parent)
            if knobs is not None and key_of(knobs) not in tried:
                return knobs
        return None

    def _mutated(self, parent: Trial) -> dict[str, Any] | None:
        plan = plan_of(Recipe.from_json(parent.recipe or {}), self._profile)
        subjects = self._subjects(plan)
        if not subjects:
            return None
        chosen = self._random.permutation(len(subjects))[: int(self._random.integers(1, 3))]
        pinned: list[Subject] = []
        for index in chosen:
            kind, name = subjects[index]
            near = [
                v for v in self._near(kind, name, plan) if kind != "bits" or v >= parent.knobs.get("fewest_bits", 2)
            ]
            if near:
                pinned.append((kind, name))
                plan = plan.having(Decision(kind, name, near[int(self._random.integers(len(near)))]))
        knobs = {k: v for k, v in parent.knobs.items() if k != MUTATION}
        if "learning_rate" in knobs and self._random.random() > KEEP_TUNING:
            rate = knobs["learning_rate"] * RATE_FACTOR ** float(self._random.choice((-1, 1)))
            knobs["learning_rate"] = float(np.clip(rate, *RATES))
        return {**knobs, MUTATION: {"plan": plan.to_json(), "pinned": [list(s) for s in pinned]}} if pinned else None

    def _subjects(self, plan: LayerPlan) -> list[Subject]:
        """Decisions about what is still there."""
        gone = self._profile.layers_of_blocks(plan.dropped)
        without = self._profile.groups_within(gone)
        found: list[Subject] = []
        if self._scope.keep:
            found += [("keep", n) for n in self._profile.sizes if n not in without]
        if self._scope.bits:
            found += [("bits", n) for n in self._profile.integer_layers if n not in gone]
        if self._scope.drop:
            found += [("drop", n) for n in self._profile.blocks]
        return found

    def _near(self, kind: Kind, name: str, plan: LayerPlan) -> list[int]:
        """The next milder and the next harder value."""
        present = plan.value_of(kind, name)
        ordered = sorted({present, *values(self._profile, (kind, name), FINEST)})
        at = ordered.index(present)
        return [*ordered[max(0, at - 1) : at], *ordered[at + 1 : at + 2]]


def start_of(knobs: Mapping[str, Any]) -> tuple[LayerPlan | None, frozenset[Subject]]:
    """What `Solver.solve` begins with for these knobs."""
    found = knobs.get(MUTATION)
    if found is None:
        return None, frozenset()
    return LayerPlan.from_json(found["plan"]), frozenset((kind, name) for kind, name in found["pinned"])

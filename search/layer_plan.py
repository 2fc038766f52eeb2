"""What is decided for every layer of a model: channels kept, weight bits, blocks that go. Plain data.

A recipe seen as a template is everything but these decisions, which the solver makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from compressors.recipe import DepthPruning, Quantization, Recipe, Step, StructuredPruning
from search.profile import Profile

FULL_BITS = 8  # of weights that integer kernels read; fewer are stored fewer

Kind = Literal["keep", "bits", "drop"]


@dataclass(frozen=True)
class Decision:
    """One layer-wise choice. keep: `value` channels of group `name`. bits: `value` bits for the weights of layer
    `name`. drop: block `name` goes (value 1) or stays (0)."""

    kind: Kind
    name: str
    value: int

    @property
    def subject(self) -> tuple[Kind, str]:
        """What is decided, whatever the value."""
        return self.kind, self.name


@dataclass(frozen=True)
class LayerPlan:
    """keep: channels per group. bits: weight bits of layers that have fewer than 8. dropped: blocks that go."""

    keep: Mapping[str, int]
    bits: Mapping[str, int] = field(default_factory=dict)
    dropped: frozenset[str] = frozenset()

    def having(self, decision: Decision) -> LayerPlan:
        """The plan with one decision taken otherwise."""
        if decision.kind == "keep":
            return replace(self, keep={**self.keep, decision.name: decision.value})
        if decision.kind == "bits":
            bits = {n: b for n, b in self.bits.items() if n != decision.name}
            return replace(self, bits=bits if decision.value == FULL_BITS else {**bits, decision.name: decision.value})
        others = self.dropped - {decision.name}
        return replace(self, dropped=others | {decision.name} if decision.value else others)

    def value_of(self, kind: Kind, name: str) -> int:
        """The present value of a decision."""
        if kind == "keep":
            return self.keep[name]
        return self.bits.get(name, FULL_BITS) if kind == "bits" else int(name in self.dropped)

    def to_json(self) -> dict[str, Any]:
        return {"keep": dict(self.keep), "bits": dict(self.bits), "dropped": sorted(self.dropped)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LayerPlan:
        return cls(dict(document["keep"]), dict(document["bits"]), frozenset(document["dropped"]))


def full_plan(profile: Profile) -> LayerPlan:
    """Nothing cut."""
    return LayerPlan(profile.sizes)


def filled(template: Recipe, plan: LayerPlan, profile: Profile) -> Recipe:
    """The template with the plan's decisions; what is left as it was is not named, nor what goes with a block."""
    gone = profile.layers_of_blocks(plan.dropped)
    without = profile.groups_within(gone)
    keep = {n: c for n, c in plan.keep.items() if c < profile.sizes[n] and n not in without}
    steps: list[Step] = []
    for step in template.steps:
        if isinstance(step, StructuredPruning) and not any(isinstance(s, StructuredPruning) for s in steps):
            steps.append(replace(step, keep=keep))
        elif isinstance(step, Quantization):
            bits = {n: (b, step.activation_bits) for n, b in plan.bits.items() if n not in gone}
            steps.append(replace(step, layer_bits={**step.layer_bits, **bits}))
        else:
            steps.append(step)
    if plan.dropped:
        place = sum(1 for s in steps if isinstance(s, StructuredPruning))
        steps.insert(place, DepthPruning(blocks=tuple(plan.dropped)))
    return Recipe(tuple(steps))


def plan_of(recipe: Recipe, profile: Profile) -> LayerPlan:
    """The decisions that stand in a recipe, as far as they are about this model's groups, layers and blocks."""
    pruning, quantization = recipe.pruning, recipe.quantization
    keep = {**profile.sizes, **({} if pruning is None else pruning.keep)}
    bits: dict[str, int] = {}
    if quantization is not None:
        for name in profile.integer_layers:
            found = quantization.bits_of(name)[0]
            if found < FULL_BITS:
                bits[name] = found
    dropped = frozenset(
        name for s in recipe.steps if isinstance(s, DepthPruning) for name in s.blocks if name in profile.blocks
    )
    return LayerPlan({n: keep[n] for n in profile.sizes}, bits, dropped)


def template_of(recipe: Recipe) -> Recipe:
    """The recipe without the decisions that a plan makes."""
    return Recipe(tuple(_undecided(recipe.steps)))


def _undecided(steps: Iterable[Step]) -> Iterable[Step]:
    for step in steps:
        if isinstance(step, StructuredPruning):
            yield replace(step, keep={})
        elif isinstance(step, Quantization):
            yield replace(step, layer_bits={})
        elif not (isinstance(step, DepthPruning) and step.blocks):
            yield step


def template_key(recipe: Recipe) -> str:
    """Equal for recipes that differ in the plan's decisions only, as far as cost goes."""
    steps = [s for s in template_of(recipe).steps if not isinstance(s, StructuredPruning)]
    return Recipe(tuple(steps)).cost_key

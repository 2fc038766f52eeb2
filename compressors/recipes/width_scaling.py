"""Configuration of a narrower copy of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step

Weights = Literal["inherited", "fresh"]


@step
@dataclass(frozen=True, kw_only=True)
class WidthScaling(Step):
    """The same network with every width multiplied by one factor (the width multiplier of Howard et al. 2017,
    arXiv:1704.04861, section 3.3): a student that needs no second model. Inputs and outputs keep their sizes.

    factor: share of its channels, neurons, attention heads and recurrent units that every group keeps, 0 < factor <= 1.
    weights: inherited keeps the units with the largest l2 norm of their producing weights (Li et al. 2017,
        arXiv:1608.08710); fresh draws all weights anew, seeded, as their layers do when they are made, which pruned
        weights do not always beat after long tuning (Liu et al. 2019, arXiv:1810.05270).
    multiple: widths of channels, neurons and recurrent units are rounded to multiples of this.

    Fresh weights know nothing: tune them, with the original as the teacher. Parameters that belong to no layer (class
    tokens, position tables, layer scales) are drawn from a normal distribution with their own mean and deviation, since
    nothing tells how they were made; constants stay.
    """

    technique: ClassVar[str] = "width_scaling"
    summary: ClassVar[str] = "makes the whole network narrower by one factor, with its own or with fresh weights"
    phase: ClassVar[Phase] = Phase.STUDENT
    value_fields: ClassVar[frozenset[str]] = frozenset({"weights"})

    factor: float = 0.5
    weights: Weights = "inherited"
    multiple: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 1:
            raise InvalidRecipe(f"width_scaling.factor={self.factor}: must lie in 0..1, above 0")
        if self.factor == 1 and self.weights == "inherited":
            raise InvalidRecipe(
                "width_scaling.factor=1 with weights='inherited': leaves the model as it is; lower factor, or use fresh"
            )
        if self.multiple < 1:
            raise InvalidRecipe(f"width_scaling.multiple={self.multiple}: must be 1 or more")

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return tuple(cls(factor=factor) for factor in (0.75, 0.5))

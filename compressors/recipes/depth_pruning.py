"""Configuration of depth pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class DepthPruning(Step):
    """Removes residual blocks: where the network computes x + f(x), it goes on with x.

    Blocks are found by structure: a sum of two tensors of one shape of which one is computed from the other, as in
    residual networks and in both halves (attention, feed-forward) of a transformer layer, norm first or last. A norm or
    activation behind the sum stays. A block is named after its first layer, with '#2', '#3', … for further ones. Sums
    of two computed branches (a shortcut with a projection) are no blocks.

    How many, by one of:
    count: so many, the least influential first; 1 without anything else. blocks: these, by name.
    threshold: all whose influence lies below it, 0 < threshold <= 2.

    influence = 1 - cos(x, x + f(x)), each sample one vector, mean over the calibration inputs (Men et al. 2024,
    arXiv:2403.03853, equation 1). rescore: influences are computed anew after each removal, one pass each; false takes
    all by their influence in the whole model, as the source does, which stacks removals in one place.

    A draft without calibration inputs takes the example inputs, so its choice, and cost, may be another one; with
    `blocks` it is exact.
    """

    technique: ClassVar[str] = "depth_pruning"
    summary: ClassVar[str] = "removes whole residual blocks and transformer layers"
    phase: ClassVar[Phase] = Phase.SHAPE

    count: int | None = None
    blocks: tuple[str, ...] = ()
    threshold: float | None = None
    rescore: bool = True

    def __post_init__(self) -> None:
        given = [
            name
            for name, there in (
                ("count", self.count is not None),
                ("blocks", bool(self.blocks)),
                ("threshold", self.threshold is not None),
            )
            if there
        ]
        if len(given) > 1:
            raise InvalidRecipe(f"depth_pruning.{given[0]} and {given[1]}: give one of count, blocks, threshold")
        if not given:
            object.__setattr__(self, "count", 1)
        if self.count is not None and self.count < 1:
            raise InvalidRecipe(f"depth_pruning.count={self.count}: must be 1 or more")
        if self.threshold is not None and not 0 < self.threshold <= 2:
            raise InvalidRecipe(f"depth_pruning.threshold={self.threshold}: must lie in 0..2, above 0")
        object.__setattr__(self, "blocks", tuple(sorted(set(self.blocks))))

    def uses_calibration(self) -> bool:
        return not self.blocks

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return tuple(cls(count=count) for count in (1, 2, 3))

"""Configuration of gradual pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from compressors.errors import InvalidRecipe
from compressors.recipes.sparsity_fields import check_sparsity
from compressors.recipes.step import Phase, Step, step
from compressors.recipes.tuning_fields import check_tuning


@step
@dataclass(frozen=True, kw_only=True)
class GradualPruning(Step):
    """Raises the share of zeros while the model is tuned, fast at first and slower later.

    s(t) = sparsity + (initial_sparsity - sparsity) * (1 - (t - begin) / (end - begin))^3
    (Zhu & Gupta 2017, arXiv:1710.01878, eq. 1), t from 0 to 1 over the run. What follows `end` is tuning with the final
    masks. A weight that has gone stays away. The file and the time are those of unstructured pruning.

    every: batches between two changes of the masks. scope, importance, layers: see unstructured_pruning.
    max_drop: None, or how far the metric may fall below that of the model which this step is given, on `held_out` of
        the tuning rows (at most 2,000), which are left out of the tuning; validation rows are never touched. Before
        each rise the metric is looked at; if it has fallen too far, weights and masks go back to the last state that
        was good, sparsity stays there, and the rest of the run tunes. The result may so have fewer zeros than
        `sparsity`.
    samples, learning_rate, temperature, alpha: see distillation.
    """

    technique: ClassVar[str] = "gradual_pruning"
    summary: ClassVar[str] = "single weights become zero little by little while the model is tuned"
    phase: ClassVar[Phase] = Phase.SPARSITY
    needs_training: ClassVar[bool] = True

    sparsity: float = 0.8
    initial_sparsity: float = 0.0
    begin: float = 0.0
    end: float = 0.7
    every: int = 10
    scope: Literal["global", "layer", "row"] = "global"
    importance: Literal["l1", "l2", "lamp"] = "l1"
    max_drop: float | None = None
    held_out: float = 0.1
    layers: tuple[str, ...] = ()
    samples: int = 20_000
    learning_rate: float = 0.01
    temperature: float = 4.0
    alpha: float = 0.9

    def __post_init__(self) -> None:
        name = self.technique
        check_sparsity(f"{name}.sparsity", self.sparsity)
        check_sparsity(f"{name}.initial_sparsity", self.initial_sparsity)
        if self.initial_sparsity > self.sparsity:
            raise InvalidRecipe(
                f"{name}.initial_sparsity={self.initial_sparsity}: above sparsity={self.sparsity}, where it ends; "
                "lower it"
            )
        if not 0 <= self.begin < self.end <= 1:
            raise InvalidRecipe(f"{name}.begin={self.begin}, end={self.end}: 0 <= begin < end <= 1; use 0 and 0.7")
        if self.every < 1:
            raise InvalidRecipe(f"{name}.every={self.every}: must be at least 1 batch; use 10")
        if self.max_drop is not None and not self.max_drop >= 0:
            raise InvalidRecipe(f"{name}.max_drop={self.max_drop}: must not be negative; use 0.01")
        if not 0 < self.held_out <= 0.5:
            raise InvalidRecipe(f"{name}.held_out={self.held_out}: must lie in 0..0.5, without 0; use 0.1")
        check_tuning(name, self.samples, self.learning_rate, self.temperature, self.alpha)
        object.__setattr__(self, "layers", tuple(sorted(self.layers)))

    def sparsity_at(self, progress: float) -> float:
        """Equation 1 at `progress`, 0..1 of the run; `initial_sparsity` before `begin`, `sparsity` after `end`."""
        passed = min(max((progress - self.begin) / (self.end - self.begin), 0.0), 1.0)
        return self.sparsity + (self.initial_sparsity - self.sparsity) * (1 - passed) ** 3

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return tuple(cls(sparsity=share) for share in (0.5, 0.7, 0.8, 0.9))

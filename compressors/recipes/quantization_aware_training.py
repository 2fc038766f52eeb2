"""Configuration of quantisation-aware training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class QuantizationAwareTraining(Step):
    """Trains a quantised model with the rounding of its file in place (Jacob et al. 2018, arXiv:1712.05877, section 3).

    Behind static quantisation weights and activations are rounded where the integer graph rounds them, behind other
    number formats of integers the weights alone. Gradients pass straight through the rounding. Batch norms are folded
    or frozen. Convolutions and linear layers with weights of their own learn new codes; biases and float layers are
    trained too; embeddings, recurrent layers and weights with scales of groups keep their codes.

    The loss is that of `distillation`, with its temperature, alpha, learning_rate and samples.
    learned_steps: scales are trained as well (LSQ: Esser et al. 2020, arXiv:1902.08153).
    """

    technique: ClassVar[str] = "quantization_aware_training"
    summary: ClassVar[str] = "trains a quantised model with its rounding in place"
    phase: ClassVar[Phase] = Phase.CORRECTION
    needs_training: ClassVar[bool] = True
    value_fields: ClassVar[frozenset[str]] = frozenset(
        {"temperature", "alpha", "learning_rate", "samples", "learned_steps"}
    )

    temperature: float = 4.0
    alpha: float = 0.9
    learning_rate: float = 0.002
    samples: int = 8192
    learned_steps: bool = True

    def __post_init__(self) -> None:
        name = self.technique
        if not self.temperature > 0:
            raise InvalidRecipe(f"{name}.temperature={self.temperature}: must be greater than 0; use 4")
        if not 0 <= self.alpha <= 1:
            raise InvalidRecipe(f"{name}.alpha={self.alpha}: must lie in 0..1; use 0.9")
        if not self.learning_rate > 0:
            raise InvalidRecipe(f"{name}.learning_rate={self.learning_rate}: must be greater than 0; use 0.002")
        if self.samples < 1:
            raise InvalidRecipe(f"{name}.samples={self.samples}: must be at least 1; leave the step out instead of 0")

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return (cls(samples=8192),)

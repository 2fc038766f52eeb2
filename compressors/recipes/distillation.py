"""Configuration of tuning with a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class Distillation(Step):
    """Tunes the compressed model against the original's logits (Hinton et al. 2015, arXiv:1503.02531).

    loss = alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * task loss

    temperature: T, > 0. alpha: 0..1, 0 is plain fine-tuning on labels.
    learning_rate: peak of the schedule. samples: training samples seen in total (the fidelity of the tuning).
    """

    technique: ClassVar[str] = "distillation"
    summary: ClassVar[str] = "tunes the smaller model with the original as its teacher"
    phase: ClassVar[Phase] = Phase.TUNING
    repeatable: ClassVar[bool] = True
    needs_training: ClassVar[bool] = True
    value_fields: ClassVar[frozenset[str]] = frozenset({"temperature", "alpha", "learning_rate", "samples"})

    temperature: float = 4.0
    alpha: float = 0.9
    learning_rate: float = 0.01
    samples: int = 0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InvalidRecipe(f"distillation.temperature={self.temperature}: must be greater than 0")
        if not 0 <= self.alpha <= 1:
            raise InvalidRecipe(f"distillation.alpha={self.alpha}: must lie in 0..1")
        if not self.learning_rate > 0:
            raise InvalidRecipe(f"distillation.learning_rate={self.learning_rate}: must be greater than 0")
        if self.samples < 0:
            raise InvalidRecipe(f"distillation.samples={self.samples}: must not be negative")

"""Configuration of the tuning of shared weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from compressors.recipes.step import Phase, Step, step
from compressors.recipes.tuning_fields import check_tuning


@step
@dataclass(frozen=True, kw_only=True)
class CentroidTuning(Step):
    """Trains the shared values of a model after weight sharing; which weight has which value stays.

    The gradient of a shared value is the sum of its weights' gradients (Han et al. 2016, arXiv:1510.00149, section
    3.3); the step is divided by their number, so that a value moves as its weights would on average. Zeros stay zero.
    Biases and norms, which are not shared, are trained along. The loss is that of distillation.

    samples: training samples seen in total. learning_rate: peak of the schedule. temperature, alpha: see distillation.
    """

    technique: ClassVar[str] = "centroid_tuning"
    summary: ClassVar[str] = "trains the shared values of weight sharing"
    phase: ClassVar[Phase] = Phase.CORRECTION
    needs_training: ClassVar[bool] = True
    value_fields: ClassVar[frozenset[str]] = frozenset({"samples", "learning_rate", "temperature", "alpha"})

    samples: int = 20_000
    learning_rate: float = 0.001
    temperature: float = 4.0
    alpha: float = 0.9

    def __post_init__(self) -> None:
        check_tuning(self.technique, self.samples, self.learning_rate, self.temperature, self.alpha)

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return (cls(),)

"""Configuration of weight averaging."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class WeightAveraging(Step):
    """Averages the weights of several fine-tuned copies of the model: one model, often better than each of them.

    Wortsman et al. 2022, arXiv:2203.05482. Copies that start from the same weights stay in one basin, where the mean of
    weights acts like the mean of outputs. Statistics of batch norms are estimated anew (Izmailov et al. 2018,
    arXiv:1803.05407, section 3.2).

    models: further copies by name; the model at hand is averaged with them. They must have its architecture.
    Without models, copies are made here:
    copies: how many, 2 or more. samples: training samples that each sees. temperature, alpha: as in distillation.
    learning_rate, spread: the copies' peak rates lie evenly in logarithm from learning_rate / spread to
    learning_rate * spread; spread 1: they differ in the order of the rows only.

    greedy: copies are tried from the best to the worst, and one stays only if the metric on held-out tuning rows does
    not fall (algorithm 1 there). held_out: share of the tuning rows set aside for that; nothing is tuned on them.
    """

    technique: ClassVar[str] = "weight_averaging"
    summary: ClassVar[str] = "averages the weights of several fine-tuned copies"
    phase: ClassVar[Phase] = Phase.TUNING
    repeatable: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True

    models: tuple[str, ...] = ()
    copies: int = 3
    samples: int = 5000
    learning_rate: float = 0.01
    spread: float = 2.0
    temperature: float = 4.0
    alpha: float = 0.9
    greedy: bool = False
    held_out: float = 0.1

    def __post_init__(self) -> None:
        if self.copies < 2:
            raise InvalidRecipe(f"weight_averaging.copies={self.copies}: must be 2 or more")
        if self.samples < 1:
            raise InvalidRecipe(f"weight_averaging.samples={self.samples}: must be 1 or more")
        if not self.learning_rate > 0:
            raise InvalidRecipe(f"weight_averaging.learning_rate={self.learning_rate}: must be greater than 0")
        if not self.spread >= 1:
            raise InvalidRecipe(f"weight_averaging.spread={self.spread}: must be 1 or more")
        if not self.temperature > 0:
            raise InvalidRecipe(f"weight_averaging.temperature={self.temperature}: must be greater than 0")
        if not 0 <= self.alpha <= 1:
            raise InvalidRecipe(f"weight_averaging.alpha={self.alpha}: must lie in 0..1")
        if not 0 < self.held_out < 1:
            raise InvalidRecipe(f"weight_averaging.held_out={self.held_out}: must lie in 0..1, without both")
        if len(set(self.models)) != len(self.models):
            raise InvalidRecipe(f"weight_averaging.models={list(self.models)}: each model once")

    def uses_training(self) -> bool:
        return self.greedy or not self.models

    def rates(self) -> tuple[float, ...]:
        """Peak learning rate of each copy."""
        exponents = (2 * i / (self.copies - 1) - 1 for i in range(self.copies))
        return tuple(self.learning_rate * self.spread**exponent for exponent in exponents)

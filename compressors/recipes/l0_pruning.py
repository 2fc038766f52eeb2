"""Configuration of pruning by trained gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from compressors.errors import InvalidRecipe
from compressors.recipes.sparsity_fields import check_sparsity
from compressors.recipes.step import Phase, Step, step
from compressors.recipes.tuning_fields import check_tuning


@step
@dataclass(frozen=True, kw_only=True)
class HardConcretePruning(Step):
    """Learns which weights to remove: each is multiplied with a random gate whose chance to be open is trained.

    Louizos et al. 2018, arXiv:1712.01312. With u uniform on (0, 1), a gate is
        z = min(1, max(0, s * (high - low) + low)),  s = sigmoid((log u - log(1 - u) + log_alpha) / gate_temperature)
    (eq. 10 and 11) and is open with probability p = sigmoid(log_alpha - gate_temperature * log(-low / high)) (eq. 12).
    The loss is that of distillation plus strength * (share of weights behind open gates, expected). In the end weights
    are multiplied with min(1, max(0, sigmoid(log_alpha) * (high - low) + low)) (eq. 13), and what is removed is fixed.

    sparsity: share of weights that is removed: the penalty counts only as far as more weights are open, and in the end
        the gates with the least log_alpha close. None: what strength leaves, so that nobody knows before.
    unit: weight: a gate each; channel: one for all weights of an output channel. Channels become zeros, not less work;
        structured_pruning removes them.
    settle: share of the run, at its end, that tunes with the final gates. gate_rate: how fast gates move. initial_open:
        probability sigmoid(log_alpha) of all gates at the start.
    layers: see unstructured_pruning. samples, learning_rate, temperature, alpha: see distillation.
    """

    technique: ClassVar[str] = "l0_pruning"
    summary: ClassVar[str] = "weights or channels become zero by gates that are trained along (L0 norm)"
    phase: ClassVar[Phase] = Phase.SPARSITY
    needs_training: ClassVar[bool] = True

    sparsity: float | None = 0.5
    strength: float = 10.0
    unit: Literal["weight", "channel"] = "weight"
    low: float = -0.1
    high: float = 1.1
    gate_temperature: float = 2 / 3
    gate_rate: float = 0.03
    initial_open: float = 0.9
    settle: float = 0.3
    layers: tuple[str, ...] = ()
    samples: int = 20_000
    learning_rate: float = 0.01
    temperature: float = 4.0
    alpha: float = 0.9

    def __post_init__(self) -> None:
        name = self.technique
        if self.sparsity is not None:
            check_sparsity(f"{name}.sparsity", self.sparsity)
        for field, remedy in (("strength", "1"), ("gate_temperature", "0.667"), ("gate_rate", "0.1")):
            if not getattr(self, field) > 0:
                raise InvalidRecipe(f"{name}.{field}={getattr(self, field)}: must be greater than 0; use {remedy}")
        if not self.low < 0:
            raise InvalidRecipe(f"{name}.low={self.low}: must be below 0, or no gate ever closes; use -0.1")
        if not self.high > 1:
            raise InvalidRecipe(f"{name}.high={self.high}: must be above 1, or no gate ever opens fully; use 1.1")
        if not 0 < self.initial_open < 1:
            raise InvalidRecipe(f"{name}.initial_open={self.initial_open}: must lie between 0 and 1; use 0.9")
        if not 0 <= self.settle < 1:
            raise InvalidRecipe(f"{name}.settle={self.settle}: must lie in 0..1, without 1; use 0.3")
        check_tuning(name, self.samples, self.learning_rate, self.temperature, self.alpha)
        object.__setattr__(self, "layers", tuple(sorted(self.layers)))

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        """Above this, magnitudes and a tuning do better in the seconds that a search has."""
        return (cls(sparsity=0.5),)

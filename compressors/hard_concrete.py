"""The hard concrete distribution on [0, 1], with mass at both ends (Louizos et al. 2018, arXiv:1712.01312)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_MARGIN = 1e-6  # of the uniform numbers, whose logarithms must be finite


@dataclass(frozen=True)
class HardConcrete:
    """temperature: beta; low: gamma < 0; high: zeta > 1. All functions take log_alpha of any shape."""

    temperature: float = 2 / 3
    low: float = -0.1
    high: float = 1.1

    def sample(self, log_alpha: Tensor) -> Tensor:
        """Gates drawn by torch's generator, differentiable in log_alpha (eq. 10 and 11)."""
        uniform = torch.rand_like(log_alpha).clamp(_MARGIN, 1 - _MARGIN)
        concrete = torch.sigmoid((uniform.logit() + log_alpha) / self.temperature)
        return self._stretched(concrete)

    def open_probability(self, log_alpha: Tensor) -> Tensor:
        """P(z > 0) (eq. 12)."""
        return torch.sigmoid(log_alpha - self.temperature * math.log(-self.low / self.high))

    def final(self, log_alpha: Tensor) -> Tensor:
        """The gate without chance (eq. 13)."""
        return self._stretched(torch.sigmoid(log_alpha))

    def _stretched(self, concrete: Tensor) -> Tensor:
        return (concrete * (self.high - self.low) + self.low).clamp(0, 1)

"""Rounding to a grid in float, with gradients: what integers will do to a value, while it can still be trained.

Forward: scale * (clip(round((x - offset) / scale) + zero_point, 0, levels) - zero_point) + offset. Backward: the
straight-through estimator (Bengio et al. 2013, arXiv:1308.3432) passes gradients inside the range; the scale's own is
that of LSQ (Esser et al. 2020, arXiv:1902.08153, equations 3 and section 2.2), scaled by 1 / sqrt(count * levels).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

_SMALLEST = 1e-8


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, levels: int) -> Tensor:
        """scale, zero_point: broadcast to x."""
        steps = x / scale
        places = steps.round() + zero_point
        codes = places.clamp(0, levels)
        inside = places == codes
        ctx.save_for_backward(steps, codes - zero_point, inside, scale)
        ctx.levels = levels
        result: Tensor = (codes - zero_point) * scale
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        steps, codes, inside, scale = ctx.saved_tensors
        passed = gradient * inside
        toward = None
        if ctx.needs_input_grad[1]:
            share = gradient * torch.where(inside, codes - steps, codes)
            count = gradient.numel() / scale.numel()
            toward = share.sum_to_size(scale.shape) / math.sqrt(count * ctx.levels)
        return passed, toward, None, None


class Grid(nn.Module):
    """A grid that values are rounded to. scale: float32, the sign of each stays; zero_point, offset: broadcast as it
    does. learned: the scale is a parameter, in the shape (count,), so that it does not decay. limit: of the scale."""

    zero_point: Tensor
    sign: Tensor
    offset: Tensor | None

    def __init__(
        self,
        scale: Tensor,
        zero_point: Tensor,
        levels: int,
        *,
        learned: bool,
        offset: Tensor | None = None,
        limit: float = math.inf,
    ) -> None:
        super().__init__()
        self.levels = levels
        self._shape, self._limit = tuple(scale.shape), limit
        self.size = nn.Parameter(scale.detach().abs().reshape(-1).clone(), requires_grad=learned)
        self.register_buffer("sign", scale.detach().sign().reshape(-1))
        self.register_buffer("zero_point", zero_point.detach().clone())
        self.register_buffer("offset", offset)

    def scale(self) -> Tensor:
        return (self.size.clamp(_SMALLEST, self._limit) * self.sign).reshape(self._shape)

    def forward(self, x: Tensor) -> Tensor:
        if self.offset is not None:
            return self._round(x - self.offset) + self.offset
        return self._round(x)

    @torch.no_grad()
    def codes(self, x: Tensor) -> Tensor:
        """Integers 0..levels, as float32."""
        return ((x / self.scale()).round() + self.zero_point).clamp(0, self.levels)

    def _round(self, x: Tensor) -> Tensor:
        result: Tensor = _Round.apply(x, self.scale(), self.zero_point, self.levels)  # type: ignore[no-untyped-call]
        return result

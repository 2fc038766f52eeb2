"""Weights rounded to a few bits and back: what a quantised layer computes with, in float."""

from __future__ import annotations

import torch
from torch import Tensor

from compressors.errors import InvalidRecipe


def rounded_weights(weight: Tensor, bits: int) -> Tensor:
    """Symmetric, one scale per output channel (dimension 0), round to nearest; same shape as `weight`.

    bits: 2..16. Jacob et al. 2018, arXiv:1712.05877, section 2.1 with zero point 0.
    """
    if not 2 <= bits <= 16:
        raise InvalidRecipe(f"bits={bits}: must lie in 2..16")
    largest = 2 ** (bits - 1) - 1
    flat = weight.detach().reshape(weight.shape[0], -1)
    scale = (flat.abs().amax(dim=1, keepdim=True) / largest).clamp_min(torch.finfo(flat.dtype).tiny)
    rounded: Tensor = ((flat / scale).round().clamp(-largest, largest) * scale).reshape(weight.shape)
    return rounded

"""Masks of a model: setting them, and what they leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from compressors.layer_weights import LayerWeight
from compressors.state import state_of


@torch.no_grad()
def set_masks(model: fx.GraphModule, weights: Sequence[LayerWeight], masks: Mapping[str, Tensor]) -> None:
    """Zeroes what the masks (by weight's name) remove and notes them under all of a weight's names."""
    noted = state_of(model).masks
    for weight in weights:
        mask = masks[weight.name]
        weight.tensor.masked_fill_(~mask, 0.0)
        for name in weight.names:
            noted[name] = mask


def masks_of(model: fx.GraphModule, weights: Sequence[LayerWeight]) -> dict[str, Tensor]:
    """The masks that earlier steps have set, by weight's name."""
    noted = state_of(model).masks
    return {weight.name: noted[weight.name] for weight in weights if weight.name in noted}


def sparsity_of(masks: Mapping[str, Tensor]) -> float:
    """Share of weights under the masks that are removed."""
    total = sum(mask.numel() for mask in masks.values())
    return 1 - sum(int(mask.sum()) for mask in masks.values()) / max(total, 1)

"""Torch-Pruning's magnitude pruner at one ratio for all layers that it can prune here."""

from __future__ import annotations

import copy

import torch
import torch_pruning
from torch import fx, nn


def prune_uniformly(model: fx.GraphModule, example: tuple[torch.Tensor, ...], ratio: float) -> fx.GraphModule:
    """L2 magnitude, the same share of the first convolution of every residual block; `model` is untouched.

    The channels of the residual streams are left out: its dependency graph does not follow the channel padding of
    parameter-free shortcuts, and the model that it makes of them crashes.
    """
    pruned = copy.deepcopy(model)
    for parameter in pruned.parameters():
        parameter.requires_grad_(True)
    layers = [(n, m) for n, m in pruned.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    ignored = [layer for name, layer in layers if not (name.endswith(".conv1") and "layer" in name)]
    pruner = torch_pruning.pruner.MagnitudePruner(
        pruned,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio,
        pruning_ratio_dict={},  # its own default is one dictionary for all calls
        ignored_layers=ignored,
    )
    pruner.step()
    return pruned.eval()

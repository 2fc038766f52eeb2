"""PyTorch's own magnitude pruning (torch.nn.utils.prune)."""

from __future__ import annotations

import copy

from torch import fx, nn
from torch.nn.utils import prune

from compressors.state import state_of


def prune_globally(model: fx.GraphModule, sparsity: float) -> fx.GraphModule:
    """A copy with this share of all convolution and linear weights at zero, the smallest of all layers together.

    The zeros are noted as masks, so that a tuning keeps them.
    """
    pruned = copy.deepcopy(model)
    layers = [(n, m) for n, m in pruned.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    prune.global_unstructured([(m, "weight") for _, m in layers], prune.L1Unstructured, amount=sparsity)
    for _, layer in layers:
        prune.remove(layer, "weight")  # type: ignore[no-untyped-call]
    for name, layer in layers:
        state_of(pruned).masks[f"{name}.weight"] = layer.weight.detach() != 0
    return pruned.eval()

"""Re-estimates the running statistics of batch norms after weights or channels have changed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Those that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@torch.no_grad()
def reestimate(model: nn.Module, batches: Iterable[tuple[Tensor, ...]]) -> int:
    """Replaces the running mean and variance by averages over `batches`, in place; returns the number of norms.

    Everything but the norms runs in eval mode. One forward pass per batch; without batch norms nothing is run.
    Source: Izmailov et al. 2018, arXiv:1803.05407, section 3.2 (`bn_update`).
    """
    norms = batch_norms(model)
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    for inputs in batches:
        model(*inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)
    return len(norms)

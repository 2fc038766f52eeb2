"""Draws all weights of a model anew, as if it had just been made."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


@torch.no_grad()
def draw_weights(model: nn.Module, seed: int) -> None:
    """In place, seeded; torch's own random state is left as it was.

    Layers draw as their `reset_parameters` does, which also resets norms and their statistics. A parameter outside such
    layers keeps its mean and deviation and is drawn from a normal distribution with them; constants and buffers stay.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn: set[int] = set()
        for module in model.modules():
            reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
            own = list(module.parameters(recurse=False))
            if reset is not None:
                reset()
                drawn.update(map(id, own))
        for parameter in model.parameters():
            if id(parameter) not in drawn and parameter.numel() > 1:
                deviation, mean = torch.std_mean(parameter)
                parameter.copy_(torch.randn_like(parameter) * deviation + mean)

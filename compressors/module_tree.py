"""Places modules and tensors under dotted names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def has_attribute(root: nn.Module, name: str) -> bool:
    value: Any = root
    for part in name.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def get_tensor(root: nn.Module, name: str) -> torch.Tensor | None:
    """The parameter or buffer called `name`, None if there is none."""
    owner, _, leaf = name.rpartition(".")
    value = getattr(root.get_submodule(owner), leaf, None)
    return value if isinstance(value, torch.Tensor) else None


def place(root: nn.Module, name: str, value: nn.Module | torch.Tensor) -> None:
    """Registers `value` under its dotted name; plain modules are created on the way."""
    *path, leaf = name.split(".")
    owner = root
    for part in path:
        if not hasattr(owner, part):
            owner.add_module(part, nn.Module())
        owner = getattr(owner, part)
    if isinstance(value, nn.Module):
        owner.add_module(leaf, value)
    elif isinstance(value, nn.Parameter):
        owner.register_parameter(leaf, value)
    else:
        owner.register_buffer(leaf, value)

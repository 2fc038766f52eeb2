"""Techniques: a function per configuration class, found by the configuration's type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import fx

from compressors.channels import ChannelGraph
from compressors.errors import InvalidRecipe


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a technique may use besides the model.

    example_inputs: a small batch that the model accepts. graph: of this very model, if it has been analysed already.
    """

    example_inputs: tuple[torch.Tensor, ...]
    seed: int = 0
    graph: ChannelGraph | None = None


Technique = Callable[[fx.GraphModule, Any, Context], fx.GraphModule]
T = TypeVar("T", bound=Technique)
_TECHNIQUES: dict[type, Technique] = {}


def register(configuration: type) -> Callable[[T], T]:
    """Declares the function that applies `configuration`; a second one for the same class raises ValueError."""

    def declare(technique: T) -> T:
        if configuration in _TECHNIQUES:
            known = _TECHNIQUES[configuration]
            raise ValueError(f"{configuration.__name__} is registered already: {known.__module__}.{known.__qualname__}")
        _TECHNIQUES[configuration] = technique
        return technique

    return declare


def apply(model: fx.GraphModule, configuration: object, context: Context) -> fx.GraphModule:
    """A new model with `configuration` applied; `model` is untouched. Raises InvalidRecipe for an unknown technique."""
    technique = _TECHNIQUES.get(type(configuration))
    if technique is None:
        known = sorted(found.__name__ for found in _TECHNIQUES)
        raise InvalidRecipe(f"technique {type(configuration).__name__}: nothing applies it; known are {known}")
    return technique(model, configuration, context)

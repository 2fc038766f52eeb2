"""Techniques: a function per configuration class, found by the configuration's type."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import fx

from compressors.channels import ChannelGraph
from compressors.errors import InvalidRecipe
from compressors.recipes.step import Step
from compressors.training import Training

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a technique may use besides the model.

    example_inputs: a small batch that the model accepts. graph: of this very model, if it has been analysed already.
    calibration: gives batches of real inputs, the same at every call, without labels. training: labelled rows and a way
    to tune on them. original: the uncompressed model, in eval mode. models: further models that recipes refer to by
    name (students, teachers, copies to average). threads: cores that may be used.
    draft: only the cost of the result matters (shapes, bytes): training is not there, calibration need not be, and
    whatever only changes values may be skipped. What chooses shapes by calibration inputs reads them if they are there.
    """

    example_inputs: Inputs
    seed: int = 0
    graph: ChannelGraph | None = None
    calibration: Callable[[], Iterable[Inputs]] | None = None
    training: Training | None = None
    original: fx.GraphModule | None = None
    models: Mapping[str, fx.GraphModule] = field(default_factory=dict)
    threads: int = 1
    draft: bool = False

    def batches(self) -> Iterable[Inputs]:
        """Calibration inputs. Raises InvalidRecipe if there are none."""
        if self.calibration is None:
            raise InvalidRecipe("the recipe reads calibration inputs and none are given; add data")
        return self.calibration()


Technique = Callable[[fx.GraphModule, Any, Context], fx.GraphModule]
T = TypeVar("T", bound=Technique)
_TECHNIQUES: dict[type[Step], Technique] = {}


def register(configuration: type[Step]) -> Callable[[T], T]:
    """Declares the function that applies `configuration`; a second one for the same class raises ValueError."""

    def declare(technique: T) -> T:
        if configuration in _TECHNIQUES:
            known = _TECHNIQUES[configuration]
            raise ValueError(f"{configuration.__name__} is registered already: {known.__module__}.{known.__qualname__}")
        _TECHNIQUES[configuration] = technique
        return technique

    return declare


def registered() -> frozenset[type[Step]]:
    """Configuration classes that a function applies."""
    return frozenset(_TECHNIQUES)


def apply(model: fx.GraphModule, configuration: Step, context: Context) -> fx.GraphModule:
    """A new model with `configuration` applied; `model` is untouched.

    Raises InvalidRecipe for an unknown technique, and for one that needs data that the context does not have.
    """
    kind: type[Step] = type(configuration)
    technique = _TECHNIQUES.get(kind)
    if technique is None:
        known = sorted(found.__name__ for found in _TECHNIQUES)
        raise InvalidRecipe(f"technique {kind.__name__}: nothing applies it; known are {known}")
    if not context.draft:
        if configuration.uses_calibration() and context.calibration is None:
            raise InvalidRecipe(f"{kind.technique} reads calibration inputs and none are given; add data")
        if configuration.uses_training() and context.training is None:
            raise InvalidRecipe(f"{kind.technique} trains on labelled rows and none are given; add data with a target")
    return technique(model, configuration, context)

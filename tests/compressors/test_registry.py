"""One function per configuration class."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import fx

from compressors.errors import InvalidRecipe
from compressors.programs import to_modules
from compressors.recipe import StructuredPruning
from compressors.recipes.step import Step
from compressors.registry import Context, apply, register
from compressors.techniques.structured_pruning import prune
from tests.models import example_inputs, exported


@dataclass(frozen=True)
class Doubling(Step):
    factor: float = 2.0


def test_a_configuration_is_applied_once_registered() -> None:
    model = to_modules(exported("mlp"))
    context = Context(example_inputs=example_inputs("mlp"))
    with pytest.raises(InvalidRecipe, match="Doubling"):
        apply(model, Doubling(), context)

    @register(Doubling)
    def double(model: fx.GraphModule, config: Doubling, context: Context) -> fx.GraphModule:
        changed = to_modules(exported("mlp"))
        with torch.no_grad():
            changed.get_parameter("fc3.bias").mul_(config.factor)
        return changed

    doubled = apply(model, Doubling(), context)
    assert torch.equal(doubled.get_parameter("fc3.bias"), 2 * model.get_parameter("fc3.bias"))


def test_a_second_registration_raises() -> None:
    with pytest.raises(ValueError, match="StructuredPruning is registered already"):
        register(StructuredPruning)(prune)

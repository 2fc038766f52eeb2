"""N:M pruning: the contract, and the pattern."""

from __future__ import annotations

import pytest
import torch
from torch import fx

from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.layer_weights import layer_weights
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import Distillation, Recipe, SemiStructuredPruning
from compressors.registry import apply
from compressors.state import state_of
from compressors.weight_scores import keep_n_of_m
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import exported

CASES = (
    Case("bert", SemiStructuredPruning()),
    Case("resnext", SemiStructuredPruning(n=1, m=4, importance="wanda")),
    Case("unet", SemiStructuredPruning(n=3, m=6)),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestSemiStructuredPruning(TechniqueConformance):
    def test_every_group_has_n_weights(self, case: Case, changed: fx.GraphModule) -> None:
        config = case.config
        assert isinstance(config, SemiStructuredPruning)
        masks = state_of(changed).masks
        seen = 0
        for weight in layer_weights(changed):
            axis = 1 - weight.output_axis
            if weight.tensor.shape[axis] % config.m:
                assert weight.name not in masks
                continue
            groups = (weight.tensor != 0).movedim(axis, -1).reshape(-1, config.m)
            assert (groups.sum(1) == config.n).all()
            assert torch.equal(masks[weight.name], weight.tensor != 0)
            seen += 1
        assert seen >= 2

    def test_tuning_keeps_the_pattern(self, case: Case, changed: fx.GraphModule) -> None:
        model = to_modules(exported(case.model))
        recipe = Recipe((case.config, Distillation(samples=96, learning_rate=0.05)))
        tuned = run_recipe(model, recipe, context_for(case.model, model))
        for name, mask in state_of(changed).masks.items():
            assert torch.equal(state_of(tuned).masks[name], mask)
            assert not tuned.get_parameter(name).detach()[~mask].any()


def test_the_largest_stay() -> None:
    scores = torch.tensor([[4.0, 1, 3, 2, 5, 5, 5, 5]])
    assert keep_n_of_m(scores, 1, 2, 4).tolist() == [[True, False, True, False, True, True, False, False]]
    assert keep_n_of_m(scores.T, 0, 1, 8).flatten().tolist() == [False] * 4 + [True] + [False] * 3


def test_wrong_use_is_refused_by_name() -> None:
    model = to_modules(exported("plain_cnn"))
    context = context_for("plain_cnn", model)
    with pytest.raises(InvalidRecipe, match=r"nm_pruning.n=4: must lie in 1..3 with m=4; use 2"):
        SemiStructuredPruning(n=4)
    with pytest.raises(InvalidRecipe, match=r"nm_pruning.m=64: must lie in 2..32; use 4"):
        SemiStructuredPruning(m=64)
    with pytest.raises(InvalidRecipe, match=r"nm_pruning.layers: 'conv1' has 3 inputs, no multiple of m=4"):
        apply(model, SemiStructuredPruning(layers=("conv1", "conv2")), context)
    with pytest.raises(InvalidRecipe, match=r"nm_pruning.layers: 'conv3' is no layer"):
        apply(model, SemiStructuredPruning(layers=("conv3",)), context)
    mlp = to_modules(exported("mlp"))
    with pytest.raises(UnsupportedModel, match=r"nm_pruning.m=32: no layer has a multiple of it as inputs, but \[5, 7"):
        apply(mlp, SemiStructuredPruning(m=32), context_for("mlp", mlp))

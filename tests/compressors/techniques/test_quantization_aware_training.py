"""Quantisation-aware training as a step of a recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compressors.errors import InvalidRecipe
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import (
    DynamicQuantization,
    Quantization,
    QuantizationAwareTraining,
    Recipe,
    WeightOnlyQuantization,
)
from compressors.state import state_of
from tests.conformance.technique import Case, TechniqueConformance, context_for, rows
from tests.models import exported

CASES = (
    Case("option_a_resnet", QuantizationAwareTraining(samples=96), (Quantization(weight_bits=4, activation_bits=6),)),
    Case("mlp", QuantizationAwareTraining(samples=96, learned_steps=False), (DynamicQuantization(weight_bits=3),)),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestQuantizationAwareTraining(TechniqueConformance):
    tolerance = 0.3  # activations are rounded in the file and not in torch


def test_training_brings_a_coarse_model_back() -> None:
    model = to_modules(exported("plain_cnn"))
    context = context_for("plain_cnn", model)
    coarse = Recipe((WeightOnlyQuantization(bits=2),))
    trained = Recipe((*coarse.steps, QuantizationAwareTraining(samples=4096, learning_rate=0.01, alpha=1.0)))
    inputs = rows("plain_cnn")
    errors = []
    for recipe in (coarse, trained):
        changed = run_recipe(model, recipe, context)
        with torch.no_grad():
            errors.append(float((changed(*inputs) - model(*inputs)).square().mean()))
        encodings = state_of(changed).encodings
        for name in ("conv1.weight", "fc1.weight"):
            assert torch.equal(changed.get_parameter(name), torch.from_numpy(encodings[name].decode()))
    assert errors[1] < 0.5 * errors[0]


def test_without_integers_there_is_nothing_to_train() -> None:
    model = to_modules(exported("mlp"))
    context = replace(context_for("mlp", model))
    with pytest.raises(InvalidRecipe, match="none comes before it"):
        Recipe((QuantizationAwareTraining(),))
    recipe = Recipe((Quantization(float_layers=("fc1", "fc2", "fc3")), QuantizationAwareTraining(samples=16)))
    run_recipe(model, recipe, context)

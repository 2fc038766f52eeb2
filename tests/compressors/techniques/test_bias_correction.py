"""Bias correction: the contract, and means of outputs that are what they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from compressors.artifact import build_artifact
from compressors.errors import UnsupportedModel
from compressors.onnx_runtime import OnnxRuntime
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import (
    BiasCorrection,
    FloatFormat,
    PowerOfTwo,
    Quantization,
    Recipe,
    Step,
    WeightOnlyQuantization,
)
from compressors.registry import apply
from compressors.state import state_of
from tests.conformance.technique import Case, TechniqueConformance, context_for, rows
from tests.models import exported

TWO_BITS = WeightOnlyQuantization(bits=2)

CASES = (
    Case("option_a_resnet", BiasCorrection(), (TWO_BITS,)),
    Case("mlp", BiasCorrection(), (PowerOfTwo(bits=2),)),  # fc2 has no bias
    Case("unet", BiasCorrection(), (TWO_BITS,)),
    Case("bert", BiasCorrection(), (FloatFormat(format="float16"),)),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestBiasCorrection(TechniqueConformance):
    pass


@pytest.mark.parametrize("case", [Case("plain_cnn", BiasCorrection(), (Quantization(weight_bits=3),))], ids=str)
class TestBiasCorrectionOfIntegers(TechniqueConformance):
    tolerance = 0.15  # activations are rounded in the file and not in torch


def outputs_of(model: fx.GraphModule, layer: str, inputs: tuple[Tensor, ...]) -> Tensor:
    """Mean per output channel of a convolution."""
    seen: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(lambda _, args, output: seen.append(output))
    with torch.no_grad():
        model(*inputs)
    hook.remove()
    return seen[0].mean((0, 2, 3))


def test_means_of_every_layer_are_restored() -> None:
    model = to_modules(exported("option_a_resnet"))
    context = context_for("option_a_resnet", model)
    inputs = tuple(torch.cat(parts) for parts in zip(*context.batches(), strict=True))
    rounded = run_recipe(model, Recipe((TWO_BITS,)), context)
    corrected = apply(rounded, BiasCorrection(), context)
    folded = run_recipe(model, Recipe((WeightOnlyQuantization(bits=8, layers=("linear",)),)), context)
    for layer in ("conv1", "layer1.conv2", "layer3.conv1", "layer3.conv2"):
        exact = outputs_of(folded, layer, inputs)
        before = outputs_of(rounded, layer, inputs) - exact
        after = outputs_of(corrected, layer, inputs) - exact
        assert float(after.abs().max()) < 1e-4 < 0.05 * float(before.abs().max()), layer


@pytest.mark.parametrize("number_format", [TWO_BITS, Quantization(weight_bits=2)], ids=["weights", "integers"])
def test_the_output_is_nearer_on_rows_that_were_not_seen(number_format: Step) -> None:
    """Counted in the runtime."""
    model = to_modules(exported("option_a_resnet"))
    context = context_for("option_a_resnet", model)
    inputs = tuple(torch.flip(part, [0, 3]) for part in rows("option_a_resnet", 64))
    with torch.no_grad():
        exact = model(*inputs).numpy()
    shifts = []
    for steps in ((number_format,), (number_format, BiasCorrection())):
        built = build_artifact(run_recipe(model, Recipe(steps), context), context.example_inputs)
        result = OnnxRuntime().load_model(built, 1).run([part.numpy() for part in inputs])[0]
        shifts.append(float(np.abs((result - exact).mean(axis=0)).max()))
    assert shifts[1] < 0.4 * shifts[0]


def test_short_biases_stay_short() -> None:
    model = to_modules(exported("bert"))
    context = context_for("bert", model)
    made = run_recipe(model, Recipe((FloatFormat(format="bfloat16"), BiasCorrection())), context)
    encoding = state_of(made).encodings["block1.fc1.bias"]
    np.testing.assert_array_equal(made.get_parameter("block1.fc1.bias").detach().numpy(), encoding.decode())


def test_nothing_to_correct_is_refused() -> None:
    model = to_modules(exported("bert"))
    recipe = Recipe((WeightOnlyQuantization(layers=("tokens",)), BiasCorrection()))
    with pytest.raises(UnsupportedModel, match=r"bias_correction: no convolution or linear layer has a rounded weight"):
        run_recipe(model, recipe, context_for("bert", model))

"""Weight-only quantisation: the contract, the bytes, and what better rounding is worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressors.artifact import build_artifact
from compressors.encodings import IntegerCodes
from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.folding import folded_copy
from compressors.layer_weights import layer_weights
from compressors.onnx_export import serialize
from compressors.programs import to_modules
from compressors.recipe import WeightOnlyQuantization
from compressors.registry import Context, apply
from compressors.state import state_of
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import example_inputs, exported

CASES = (
    Case("plain_cnn", WeightOnlyQuantization(bits=4, group_size=16, scheme="affine")),
    Case("option_a_resnet", WeightOnlyQuantization(bits=3, rounding="gptq")),
    Case("mobilenet", WeightOnlyQuantization(bits=4, rounding="adaround", iterations=20)),
    Case("bert", WeightOnlyQuantization(bits=2, group_size=8, layer_bits={"classifier": 8})),
    Case("unet", WeightOnlyQuantization(bits=5)),
    Case("tied_weights", WeightOnlyQuantization(bits=3, rounding="gptq", range="max")),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestWeightOnlyQuantization(TechniqueConformance):
    def test_the_parameters_hold_what_the_file_decodes_to(self, case: Case, changed: torch.fx.GraphModule) -> None:
        encodings = state_of(changed).encodings
        assert {name for weight in layer_weights(changed) for name in weight.names} == set(encodings)
        for name, encoding in encodings.items():
            np.testing.assert_array_equal(changed.get_parameter(name).detach().numpy(), encoding.decode())


def test_fewer_bits_make_smaller_files() -> None:
    model = to_modules(exported("plain_cnn"))
    context = context_for("plain_cnn", model)
    whole = len(serialize(build_artifact(model, context.example_inputs)))
    sizes = {}
    for bits in (2, 3, 4, 8):
        made = apply(model, WeightOnlyQuantization(bits=bits, range="max"), context)
        sizes[bits] = len(serialize(build_artifact(made, context.example_inputs)))
    parameters = sum(weight.tensor.numel() for weight in layer_weights(model))
    assert sizes[2] < sizes[4] < sizes[8] < whole
    for bits, size in sizes.items():
        saved = (32 - bits) / 8 * parameters
        assert whole - size == pytest.approx(saved, abs=1500), bits  # scales, functions, nodes


@pytest.mark.parametrize(("better", "share"), [("gptq", 0.7), ("adaround", 0.9)])
def test_better_rounding_disturbs_the_network_less(better: str, share: float) -> None:
    model = to_modules(exported("option_a_resnet"))
    context = context_for("option_a_resnet", model)
    inputs = torch.cat([batch[0] for batch in context.batches()])

    def error(rounding: str) -> float:
        config = WeightOnlyQuantization(bits=3, range="max", rounding=rounding, iterations=300)  # type: ignore[arg-type]
        with torch.no_grad():
            return float((apply(model, config, context)(inputs) - model(inputs)).square().mean())

    assert error(better) < share * error("nearest")


def test_zeros_of_a_mask_stay_zero() -> None:
    model = folded_copy(to_modules(exported("plain_cnn")), example_inputs("plain_cnn"))
    context = context_for("plain_cnn", model)
    masks = state_of(model).masks
    for weight in layer_weights(model):
        masks[weight.name] = weight.tensor.detach().abs() > weight.tensor.detach().abs().median()
        weight.tensor.data *= masks[weight.name]
    for rounding in ("nearest", "gptq", "adaround"):
        config = WeightOnlyQuantization(bits=2, scheme="affine", rounding=rounding, iterations=10)
        made = apply(model, config, context)
        for name, mask in masks.items():
            assert not made.get_parameter(name).detach()[~mask].any()


def test_wrong_use_is_refused_by_name() -> None:
    model = to_modules(exported("mlp"))
    context = context_for("mlp", model)
    with pytest.raises(InvalidRecipe, match=r"weight_only_quantization.layers: 'fc9' is no layer.*fc"):
        apply(model, WeightOnlyQuantization(layers=("fc9",)), context)
    with pytest.raises(InvalidRecipe, match=r"layer_bits: 'bn' is no layer"):
        apply(model, WeightOnlyQuantization(layer_bits={"bn": 4}), context)
    with pytest.raises(InvalidRecipe, match=r"layer_bits\['fc1'\]=9: must lie in 2..8; use 8"):
        WeightOnlyQuantization(layer_bits={"fc1": 9})
    with pytest.raises(InvalidRecipe, match=r"group_size=1: .* use 32"):
        WeightOnlyQuantization(group_size=1)
    with pytest.raises(InvalidRecipe, match=r"reads calibration inputs \(rounding='gptq'\)"):
        apply(model, WeightOnlyQuantization(rounding="gptq"), replace(context, calibration=None))


class _NoWeights(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


def test_a_model_without_weights_is_refused() -> None:
    model = to_modules(torch.export.export(_NoWeights(), (torch.rand(2, 3),)))
    with pytest.raises(UnsupportedModel, match="the model has no weights"):
        apply(model, WeightOnlyQuantization(), Context(example_inputs=(torch.rand(2, 3),)))


def test_chosen_layers_only() -> None:
    model = to_modules(exported("mlp"))
    made = apply(model, WeightOnlyQuantization(layers=("fc2",), bits=8), context_for("mlp", model))
    (encoding,) = state_of(made).encodings.values()
    assert isinstance(encoding, IntegerCodes)
    assert encoding.scale.shape == (7, 1)

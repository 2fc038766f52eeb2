"""Static quantisation as a step of a recipe."""

from __future__ import annotations

import pytest

from compressors.folding import folded_copy
from compressors.onnx_export import export_onnx
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import Quantization, Recipe
from compressors.static_quantization import integer_layer_names
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import example_inputs, exported

CASES = (
    Case("plain_cnn", Quantization(weight_bits=4, rounding="gptq")),
    Case("option_a_resnet", Quantization(observer="min_max", weight_bits=4, layer_bits={"conv1": (8, 8)})),
    Case("mobilenet", Quantization(observer="entropy", weight_scheme="affine", activation_bits=7)),
    Case("mlp", Quantization(activation_scheme="symmetric")),
    Case("bert", Quantization(observer="mse", weight_granularity="tensor", weight_bits=6)),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestQuantization(TechniqueConformance):
    tolerance = 0.15  # activations are rounded in the file and not in torch


def test_rounding_is_learnt_only_at_few_bits() -> None:
    model = to_modules(exported("plain_cnn"))
    names = integer_layer_names(
        export_onnx(folded_copy(model, example_inputs("plain_cnn")), example_inputs("plain_cnn"))
    )
    few = {names[-1]: (3, 8)}
    context = context_for("plain_cnn", model)
    learnt = run_recipe(model, Recipe((Quantization(layer_bits=few, rounding="gptq", rounding_bits=4),)), context)
    nearest = run_recipe(model, Recipe((Quantization(layer_bits=few),)), context)
    weights = {n: [m.get_parameter(f"{n}.weight") for m in (learnt, nearest)] for n in names}
    assert len(names) > 1
    assert {n for n, (a, b) in weights.items() if not a.equal(b)} == set(few)

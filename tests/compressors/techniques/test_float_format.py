"""Short floats: the contract, the bytes, and how far values move."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compressors.artifact import build_artifact
from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.layer_weights import layer_weights
from compressors.onnx_export import serialize
from compressors.programs import to_modules
from compressors.recipe import FloatFormat
from compressors.registry import apply
from compressors.state import state_of
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import exported

CASES = (
    Case("plain_cnn", FloatFormat(format="float16")),
    Case("bert", FloatFormat(format="bfloat16")),
    Case("unet", FloatFormat(format="float8_e4m3")),
    Case("tied_weights", FloatFormat(format="float8_e5m2", layers=("embedding", "fc1"))),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestFloatFormat(TechniqueConformance):
    pass


@pytest.mark.parametrize(
    ("name", "error", "bytes_left"),
    [("float16", 2**-11, 2), ("bfloat16", 2**-8, 2), ("float8_e4m3", 2**-4, 1), ("float8_e5m2", 2**-3, 1)],
)
def test_error_and_bytes(name: str, error: float, bytes_left: int) -> None:
    """Largest relative error: half a step of the mantissa."""
    model = to_modules(exported("plain_cnn"))
    context = context_for("plain_cnn", model)
    made = apply(model, FloatFormat(format=name), context)  # type: ignore[arg-type]
    floats = state_of(made).floats
    for weight in layer_weights(made):
        before, after = floats[weight.name], weight.tensor.detach()
        large = before.abs() > before.abs().max() / 100  # below, subnormal numbers are coarser
        assert float(((after - before) / before)[large].abs().max()) <= error * 1.001
    whole, stored = (len(serialize(build_artifact(m, context.example_inputs))) for m in (model, made))
    assert whole - stored == pytest.approx((4 - bytes_left) * 3040, abs=450)


def test_sixteen_bits_take_in_biases() -> None:
    model = to_modules(exported("plain_cnn"))
    context = context_for("plain_cnn", model)
    encodings = state_of(apply(model, FloatFormat(layers=("conv2",)), context)).encodings
    assert set(encodings) == {"conv2.weight"}  # twelve numbers are not worth a node
    encodings = state_of(apply(model, FloatFormat(), context)).encodings
    assert {"conv1.weight", "fc1.weight"} <= set(encodings)
    bert = to_modules(exported("bert"))
    encodings = state_of(apply(bert, FloatFormat(), context_for("bert", bert))).encodings
    assert "block1.fc1.bias" in encodings
    assert "positions" in encodings


def test_wrong_use_is_refused_by_name() -> None:
    model = to_modules(exported("mlp"))
    context = context_for("mlp", model)
    with pytest.raises(InvalidRecipe, match=r"float_format.layers: 'bn' is no layer with weights; near are"):
        apply(model, FloatFormat(layers=("bn",)), context)
    with torch.no_grad():
        model.get_parameter("fc2.weight")[0, 0] = 1e6
    with pytest.raises(
        UnsupportedModel, match=r"fc2.weight holds 1e\+06, beyond the 6.55e\+04 of float16; use bfloat16"
    ):
        apply(model, FloatFormat(), context)
    made = apply(model, FloatFormat(format="float8_e4m3"), context)
    assert np.isclose(made.get_parameter("fc2.weight").detach().numpy()[0, 0], 1e6, rtol=0.01)

"""Static quantisation as a step of a recipe."""

from __future__ import annotations

import pytest

from compressors.recipe import Quantization
from tests.conformance.technique import Case, TechniqueConformance

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

"""Static quantisation as a step of a recipe."""

from __future__ import annotations

import pytest

from compressors.recipe import Quantization
from tests.conformance.technique import Case, TechniqueConformance

CASES = (
    Case("plain_cnn", Quantization()),
    Case("option_a_resnet", Quantization(observer="min_max")),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestQuantization(TechniqueConformance):
    tolerance = 0.15  # activations are rounded in the file and not in torch

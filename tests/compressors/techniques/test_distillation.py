"""Tuning as a step of a recipe."""

from __future__ import annotations

import pytest

from compressors.recipe import Distillation
from tests.conformance.technique import Case, TechniqueConformance

CASES = (
    Case("mlp", Distillation(samples=96, learning_rate=0.05)),
    Case("plain_cnn", Distillation(samples=96, learning_rate=0.05)),  # with dropout
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestDistillation(TechniqueConformance):
    pass

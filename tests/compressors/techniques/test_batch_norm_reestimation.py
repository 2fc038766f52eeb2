"""Re-estimated statistics as a step of a recipe."""

from __future__ import annotations

import pytest

from compressors.recipe import BatchNormReestimation
from tests.conformance.technique import Case, TechniqueConformance

CASES = (Case("option_a_resnet", BatchNormReestimation()),)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestBatchNormReestimation(TechniqueConformance):
    pass

"""Structured pruning as a step of a recipe."""

from __future__ import annotations

import pytest

from compressors.recipe import StructuredPruning
from tests.conformance.technique import Case, TechniqueConformance

CASES = (Case("plain_cnn", StructuredPruning(keep={"conv1": 5, "fc1": 6})),)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestStructuredPruning(TechniqueConformance):
    pass

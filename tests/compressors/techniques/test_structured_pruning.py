"""Structured pruning as a step of a recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compressors.errors import InvalidRecipe
from compressors.programs import to_modules
from compressors.recipe import StructuredPruning
from compressors.registry import apply
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import exported

CASES = (
    Case("plain_cnn", StructuredPruning(keep={"conv1": 5, "fc1": 6})),
    Case("split_and_shuffle", StructuredPruning(ratio=0.4, multiple=2, importance="activation")),
    Case("vit", StructuredPruning(ratio=0.5, ratios={"attention.in_proj#2": 0.25}, importance="taylor")),
    Case("bert", StructuredPruning(ratio=0.4, scope="global", minimum_share=0.3)),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestStructuredPruning(TechniqueConformance):
    pass


@pytest.mark.parametrize(
    ("importance", "missing", "message"),
    [("taylor", "training", "reads labelled rows"), ("activation", "calibration", "reads calibration inputs")],
)
def test_criteria_that_need_data_say_so(importance: str, missing: str, message: str) -> None:
    model = to_modules(exported("plain_cnn"))
    config = StructuredPruning(ratio=0.5, importance=importance)  # type: ignore[arg-type]
    context = context_for("plain_cnn", model)
    context = replace(context, training=None) if missing == "training" else replace(context, calibration=None)
    with pytest.raises(InvalidRecipe, match=f"structured_pruning.importance='{importance}': {message}"):
        apply(model, config, context)
    assert apply(model, config, replace(context, draft=True)).get_parameter("conv1.weight").shape[0] == 4

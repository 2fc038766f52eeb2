"""Recipes: legal orders, reasons for the others, values of wrong types, and the way through JSON."""

from __future__ import annotations

from typing import Any

import pytest

from compressors.errors import InvalidRecipe
from compressors.recipe import BatchNormReestimation, Distillation, Quantization, Recipe, StructuredPruning

PRUNE = StructuredPruning(keep={"conv1": 3})


def document(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "steps": list(steps)}


def test_pruning_and_tuning_may_alternate() -> None:
    recipe = Recipe((PRUNE, Distillation(), PRUNE, Distillation(), BatchNormReestimation(), Quantization()))
    assert Recipe.from_json(recipe.to_json()) == recipe
    before, after = recipe.around_tuning()
    assert before.steps == recipe.steps[:3]
    assert after.steps == recipe.steps[4:]
    untuned = Recipe((PRUNE, BatchNormReestimation(), Quantization()))
    assert [len(part.steps) for part in untuned.around_tuning()] == [1, 2]


def test_recipes_that_differ_in_values_only_cost_the_same() -> None:
    one = Recipe((PRUNE, Distillation(samples=5), Quantization(observer="mse")))
    other = Recipe((StructuredPruning(keep={"conv1": 3}, importance="l1"), Quantization()))
    assert one.cost_key == other.cost_key
    assert one.cost_key != Recipe((StructuredPruning(keep={"conv1": 2}), Quantization())).cost_key


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ((Quantization(), PRUNE), "structured_pruning cannot come after quantization: .*final weights"),
        ((Quantization(), Distillation()), "put distillation before quantization"),
        ((Quantization(), Quantization()), "quantization may stand in it once"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_with_the_reason(steps: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(InvalidRecipe, match=reason):
        Recipe(steps)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"version": 7, "steps": []}, "version=7: this release reads 1"),
        ({"version": 1, "step": []}, "recipe step: no such field"),
        ({"version": 1, "steps": "quantization"}, "must be a list of steps"),
        (document({"technique": "quantisation"}), "did you mean 'quantization'"),
        (document({"technique": "quantization", "bits": 9}), "quantization.weight_bits=9: must lie in 2..8; use 8"),
        (document({"technique": "quantization", "bits": 8.0}), "quantization.weight_bits=8.0: must be a whole number"),
        (document({"technique": "quantization", "bits": 8, "weight_bits": 8}), "earlier name of weight_bits"),
        (document({"technique": "quantization", "percentile": 50}), "percentile=50.0: must lie in 90..100"),
        (
            document({"technique": "quantization", "layer_bits": {"fc": [4]}}),
            r"layer_bits\['fc'\]=.*must hold 2 values",
        ),
        (document({"technique": "quantization", "layer_bits": {"fc": [4, 1]}}), r"\['fc'\]\[1\]=1: must lie in 2..8"),
        (
            document({"technique": "quantization", "layer_bits": {"fc": [4, 8]}, "float_layers": ["fc"]}),
            "the layer is in float_layers too",
        ),
        (document({"technique": "quantization", "observers": "mse"}), "did you mean 'observer'"),
        (document({"technique": "quantization", "float_layers": "fc"}), "float_layers='fc': must be a list"),
        (document({"technique": "quantization", "float_layers": [1]}), r"float_layers\[0\]=1: must be text"),
        (document({"technique": "structured_pruning", "keep": {"conv1": 2.5}}), "must be a whole number"),
        (document({"technique": "structured_pruning", "keep": {"conv1": True}}), "must be a whole number"),
        (document({"technique": "structured_pruning", "keep": [3]}), "must be a mapping"),
        (document({"technique": "structured_pruning", "keep": {"conv1": 0}}), "at least 1 channel must remain"),
        (document({"technique": "distillation", "temperature": "hot"}), "temperature='hot': must be a number"),
        (document({"technique": "distillation", "alpha": 2}), "alpha=2.0: must lie in 0..1"),
    ],
)
def test_wrong_documents_are_refused_by_name(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        Recipe.from_json(wrong)


def test_recipes_of_earlier_releases_are_read() -> None:
    old = document(
        {"technique": "structured_pruning", "keep": {"b": 2, "a": 1}, "importance": "l2"},
        {"technique": "distillation", "temperature": 4.0, "alpha": 0.9, "learning_rate": 0.01, "samples": 640},
        {"technique": "quantization", "bits": 8, "observer": "percentile", "float_layers": []},
    )
    recipe = Recipe.from_json(old)
    assert recipe.pruning is not None and list(recipe.pruning.keep) == ["a", "b"]
    assert recipe.distillation is not None and recipe.distillation.samples == 640
    assert recipe.quantization == Quantization()

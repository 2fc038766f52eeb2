"""Weight averaging as a step of a recipe, and soups."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx

from compressors.batch_norm_statistics import reestimate
from compressors.errors import InvalidRecipe
from compressors.programs import to_modules
from compressors.recipe import UnstructuredPruning, WeightAveraging
from compressors.registry import Context, apply
from compressors.state import state_of
from compressors.techniques.weight_averaging import held_out_score
from compressors.training import Batch, Training
from compressors.weight_averaging import average, greedy_soup
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import build, example_inputs, export, exported

CASES = (
    Case("mlp", WeightAveraging(copies=2, samples=64)),
    Case("option_a_resnet", WeightAveraging(copies=2, samples=32, greedy=True, held_out=0.3)),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestWeightAveraging(TechniqueConformance):
    pass


def model_of(name: str, seed: int = 0) -> fx.GraphModule:
    return to_modules(export(build(name, seed), example_inputs(name)))


def given(*names: str) -> tuple[fx.GraphModule, Context]:
    """A small network, and others of its architecture with other weights under these names."""
    model = model_of("mlp")
    others = {name: model_of("mlp", seed) for seed, name in enumerate(names, 1)}
    return model, replace(context_for("mlp", model), models=others)


def test_the_average_is_the_mean_of_every_weight() -> None:
    model, context = given("a", "b")
    averaged = apply(model, WeightAveraging(models=("a", "b")), context)
    models = (model, *context.models.values())
    for name, parameter in averaged.named_parameters():
        expected = np.mean([m.get_parameter(name).detach().numpy() for m in models], axis=0)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, atol=1e-6)


def test_statistics_of_batch_norms_are_those_of_the_average() -> None:
    model, context = given("a")
    averaged = apply(model, WeightAveraging(models=("a",)), context)
    expected = average([model, context.models["a"]])
    reestimate(expected, context.batches())
    assert torch.equal(averaged.get_buffer("bn.running_var"), expected.get_buffer("bn.running_var"))
    mean = (model.get_buffer("bn.running_var") + context.models["a"].get_buffer("bn.running_var")) / 2
    assert not torch.allclose(averaged.get_buffer("bn.running_var"), mean, atol=1e-3)


def test_a_soup_of_equal_models_is_the_model() -> None:
    model = model_of("option_a_resnet")
    soup = greedy_soup({name: copy.deepcopy(model) for name in "abc"}, lambda m: 0.5)
    for name, tensor in soup.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    assert soup.members == ("a", "b", "c")


def first_weight(model: fx.GraphModule) -> float:
    return float(model.get_parameter("fc3.bias").detach()[0])


def numbered(values: Sequence[float]) -> dict[str, fx.GraphModule]:
    """Copies of one model that differ in the first value of a bias."""
    models = {}
    for value in values:
        models[f"{value:g}"] = model = model_of("mlp")
        with torch.no_grad():
            model.get_parameter("fc3.bias")[0] = value
    return models


def test_greedy_soups_take_what_helps_the_best_first() -> None:
    """Scores by distance to 1: 1.2 is best; 0.7 brings the mean to 0.95; 3 and -2 would lead away."""
    models = numbered([3, 0.7, 1.2, -2])
    soup = greedy_soup(models, lambda m: -abs(first_weight(m) - 1))
    assert soup.members == ("1.2", "0.7")
    assert first_weight(soup.model) == pytest.approx(0.95)
    assert soup.score == pytest.approx(-0.05)
    assert soup.scores == pytest.approx({"3": -2, "0.7": -0.3, "1.2": -0.2, "-2": -3})
    assert [first_weight(m) for m in models.values()] == pytest.approx([3, 0.7, 1.2, -2]), "models are untouched"


@pytest.mark.parametrize("seed", range(5))
def test_a_greedy_soup_is_never_worse_than_its_best_model(seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = random.normal(size=64)
    models = numbered([float(value) for value in random.normal(size=4)])
    soup = greedy_soup(models, lambda m: float(np.interp(first_weight(m), np.linspace(-3, 3, 64), weights)))
    assert soup.score >= max(soup.scores.values())


def test_copies_differ_in_rate_and_order_and_nothing_is_tuned_on_held_out_rows() -> None:
    model = model_of("mlp")
    context = context_for("mlp", model)
    assert context.training is not None
    fetch, seen = context.training.fetch, []

    def recording(positions: Any) -> Batch:
        seen.append(np.array(positions))
        return fetch(positions)

    training = replace(context.training, fetch=recording)
    config = WeightAveraging(copies=3, samples=80, greedy=True, held_out=0.25)
    apply(model, config, replace(context, training=training))
    scored = {tuple(positions) for positions in seen if len(positions) == 12}
    assert len(scored) == 1, "12 of 48 rows are held out"
    (held_out,) = scored
    tuned = [positions for positions in seen if tuple(positions) != held_out]
    assert sum(len(positions) for positions in tuned) == 3 * 80
    assert not set(np.concatenate(tuned).tolist()) & set(held_out)
    assert config.rates() == pytest.approx((0.005, 0.01, 0.02))


def test_the_step_is_no_worse_on_held_out_rows_than_any_copy() -> None:
    model = model_of("mlp")
    context = context_for("mlp", model)
    training = context.training
    assert training is not None
    config = WeightAveraging(copies=3, samples=96, greedy=True, held_out=0.3)
    found = apply(model, config, context)
    rows = np.arange(training.rows, dtype=np.int64)
    assert 0 <= held_out_score(found, training, rows) <= 1
    assert isinstance(training, Training)


def test_pruned_weights_stay_zero() -> None:
    model = model_of("mlp")
    context = context_for("mlp", model)
    sparse = apply(model, UnstructuredPruning(sparsity=0.5), context)
    averaged = apply(sparse, WeightAveraging(copies=2, samples=64), context)
    masks = state_of(averaged).masks
    assert masks
    for name, mask in masks.items():
        assert not (averaged.get_parameter(name).detach() * ~mask.bool()).any()
    with pytest.raises(InvalidRecipe, match="has weights where they have been pruned"):
        apply(sparse, WeightAveraging(models=("dense",)), replace(context, models={"dense": model}))


def test_wrong_models_are_refused() -> None:
    model, context = given("tuned_a", "tuned_b")
    with pytest.raises(InvalidRecipe, match=r"weight_averaging.models: 'tuned_c' is not given; given are \['tuned_"):
        apply(model, WeightAveraging(models=("tuned_c",)), context)
    with pytest.raises(InvalidRecipe, match=r"'tuned_c' is not given; none are given"):
        apply(model, WeightAveraging(models=("tuned_c",)), replace(context, models={}))
    other = replace(context, models={"other": to_modules(exported("plain_cnn"))})
    with pytest.raises(
        InvalidRecipe, match=r"model 'other' cannot be averaged with 'the model at hand': bn.* is only in"
    ):
        apply(model, WeightAveraging(models=("other",)), replace(other, draft=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"copies": 1}, "weight_averaging.copies=1: must be 2 or more"),
        ({"samples": 0}, "weight_averaging.samples=0: must be 1 or more"),
        ({"spread": 0.5}, "weight_averaging.spread=0.5: must be 1 or more"),
        ({"held_out": 1.0}, "weight_averaging.held_out=1.0"),
        ({"models": ("a", "a")}, "each model once"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        WeightAveraging(**fields)

"""Gradual pruning: the contract, the schedule, and what happens when the metric falls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import fx, nn

from compressors.errors import InvalidData, InvalidRecipe
from compressors.held_out import HeldOut
from compressors.layer_weights import layer_weights
from compressors.programs import to_modules
from compressors.recipe import GradualPruning, UnstructuredPruning
from compressors.registry import Context, apply
from compressors.sparsity import sparsity_of
from compressors.state import state_of
from compressors.tasks import task
from compressors.training import Batch, Training
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import exported

CASES = (
    Case("plain_cnn", GradualPruning(sparsity=0.9, samples=192, every=1)),
    Case("tied_weights", GradualPruning(sparsity=0.6, samples=96, every=1, scope="layer", importance="l1")),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestGradualPruning(TechniqueConformance):
    def test_the_full_sparsity_is_reached(self, case: Case, start: fx.GraphModule, changed: fx.GraphModule) -> None:
        config = case.config
        assert isinstance(config, GradualPruning)
        masks = {weight.name: state_of(changed).masks[weight.name] for weight in layer_weights(changed)}
        total = sum(mask.numel() for mask in masks.values())
        assert sparsity_of(masks) == pytest.approx(config.sparsity, abs=(1 + len(masks)) / total)
        for name, mask in state_of(changed).masks.items():
            assert not changed.get_parameter(name).detach()[~mask].any()
            assert not torch.equal(changed.get_parameter(name), start.get_parameter(name) * mask)


def test_the_schedule_is_equation_1() -> None:
    config = GradualPruning(sparsity=0.8, initial_sparsity=0.2, begin=0.25, end=0.75)
    values = [config.sparsity_at(t) for t in (0, 0.25, 0.375, 0.5, 0.625, 0.75, 1)]
    assert values == pytest.approx([0.2, 0.2, 0.546875, 0.725, 0.790625, 0.8, 0.8])


Learner = tuple[fx.GraphModule, torch.Tensor, tuple[torch.Tensor, ...]]


def context_with(learner: Learner) -> Context:
    """Rows whose labels are the model's own answers."""
    model, answers, inputs = learner

    def fetch(positions: npt.NDArray[np.int64]) -> Batch:
        at = torch.from_numpy(positions)
        return tuple(tensor[at] for tensor in inputs), answers.argmax(1)[at], answers[at]

    return Context(
        example_inputs=tuple(tensor[:2] for tensor in inputs),
        training=Training(task=task("classification"), rows=len(answers), fetch=fetch),
        original=model,
    )


@pytest.fixture(scope="module")
def learner() -> Learner:
    """A network of which about half of the weights matter, with its answers on 400 rows."""
    torch.manual_seed(0)
    first, last = nn.Linear(12, 24), nn.Linear(24, 6)
    for layer in (first, last):
        layer.weight.data *= 3 * torch.rand_like(layer.weight) ** 3
    network = nn.Sequential(first, nn.ReLU(), last)
    inputs = (torch.randn(400, 12),)
    model = to_modules(torch.export.export(network, inputs, dynamic_shapes=({0: torch.export.Dim("batch")},)))
    with torch.no_grad():
        return model, model(*inputs), inputs


def accuracy(model: nn.Module, answers: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> float:
    with torch.no_grad():
        return float((model(*inputs).argmax(1) == answers.argmax(1)).float().mean())


def test_a_falling_metric_stops_the_rise_and_brings_the_last_good_state_back(
    learner: Learner,
) -> None:
    model, answers, inputs = learner
    context = context_with(learner)
    config = GradualPruning(sparsity=0.97, samples=4000, every=1, learning_rate=0.02)
    heedless = apply(model, config, context)
    careful = apply(model, replace(config, max_drop=0.05, held_out=0.5), context)
    assert sparsity_of(state_of(heedless).masks) == pytest.approx(0.97, abs=0.01)
    assert accuracy(heedless, answers, inputs) < 0.85
    assert 0.1 < sparsity_of(state_of(careful).masks) < 0.95
    held_out = HeldOut(context.training, 0.5, context.seed)  # type: ignore[arg-type]
    assert held_out.metric(careful) >= 0.95
    for name, mask in state_of(careful).masks.items():
        assert not careful.get_parameter(name).detach()[~mask].any()


def test_a_drop_that_never_comes_changes_nothing_but_the_rows(
    learner: Learner,
) -> None:
    config = GradualPruning(sparsity=0.5, samples=400, every=1, max_drop=1.0)
    pruned = apply(learner[0], config, context_with(learner))
    assert sparsity_of(state_of(pruned).masks) == pytest.approx(0.5, abs=0.005)


def test_a_metric_that_is_never_good_leaves_the_model_dense(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    model, answers, inputs = learner
    metrics = iter([1.0])
    monkeypatch.setattr(HeldOut, "metric", lambda self, model: next(metrics, 0.0))
    pruned = apply(model, GradualPruning(samples=400, max_drop=0.5), context_with(learner))
    assert not state_of(pruned).masks
    assert accuracy(pruned, answers, inputs) == 1.0


def test_held_out_rows_are_not_tuned_on() -> None:
    fetched: list[int] = []

    def fetch(positions: npt.NDArray[np.int64]) -> Batch:
        fetched.extend(positions.tolist())
        return (torch.eye(3)[positions % 3],), torch.from_numpy(positions % 3), None

    held_out = HeldOut(Training(task=task("classification"), rows=100, fetch=fetch), 0.2, seed=0)
    assert held_out.metric(nn.Identity()) == 1.0
    watched = set(fetched)
    assert len(watched) == len(fetched) == 20
    fetched.clear()
    held_out.training.fetch(np.arange(held_out.training.rows))
    assert sorted([*watched, *fetched]) == list(range(100))


def test_it_starts_from_earlier_zeros() -> None:
    model = to_modules(exported("mlp"))
    context = context_for("mlp", model)
    once = apply(model, UnstructuredPruning(sparsity=0.5, importance="random"), context)
    twice = apply(once, GradualPruning(sparsity=0.7, samples=96), context)
    assert sparsity_of(state_of(twice).masks) == pytest.approx(0.7, abs=0.01)
    for name, mask in state_of(twice).masks.items():
        assert not (mask & ~state_of(once).masks[name]).any()


def test_wrong_use_is_refused_by_name() -> None:
    model = to_modules(exported("mlp"))
    context = context_for("mlp", model)
    for arguments, message in (
        ({"sparsity": 1.2}, r"gradual_pruning.sparsity=1.2: must lie in 0..1"),
        ({"initial_sparsity": 0.9}, r"initial_sparsity=0.9: above sparsity=0.8"),
        ({"begin": 0.8}, r"begin=0.8, end=0.7: 0 <= begin < end <= 1"),
        ({"every": 0}, r"every=0: must be at least 1 batch"),
        ({"max_drop": -0.1}, r"max_drop=-0.1: must not be negative"),
        ({"held_out": 0.7}, r"held_out=0.7: must lie in 0..0.5"),
        ({"samples": 0}, r"samples=0: must be at least 1"),
        ({"alpha": 2.0}, r"alpha=2.0: must lie in 0..1"),
    ):
        with pytest.raises(InvalidRecipe, match=message):
            GradualPruning(**arguments)
    with pytest.raises(InvalidRecipe, match=r"gradual_pruning.layers: 'fc9' is no layer"):
        apply(model, GradualPruning(layers=("fc9",)), context)
    with pytest.raises(InvalidData, match=r"0.1 of 48 tuning rows are 4 rows to watch the metric on: at least 8"):
        apply(model, GradualPruning(max_drop=0.1), context)

"""Scores by data: what the loss really loses, and what the next layer really reads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.stats import spearmanr
from torch import Tensor, fx

from benchmarks.families import FAMILIES
from benchmarks.families import exported as family_program
from compressors.channels import ChannelGraph, analyse
from compressors.data_importance import activation_scores, taylor_scores
from compressors.importance import unit_scores
from compressors.masking import masked_forward
from compressors.programs import to_modules
from tests.models import example_inputs, exported

ROWS = 12


def loaded(name: str) -> tuple[fx.GraphModule, ChannelGraph]:
    model = to_modules(exported(name))
    return model, analyse(model, example_inputs(name))


def images(size: int = 16) -> Tensor:
    return torch.rand(ROWS, 3, size, size, generator=torch.Generator().manual_seed(1))


def loss(outputs: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(outputs, target)


def labelled(inputs: tuple[Tensor, ...], classes: int) -> list[tuple[tuple[Tensor, ...], Tensor]]:
    return [(inputs, torch.arange(len(inputs[0])) % classes)]


@pytest.mark.parametrize("name", ["vit", "bert"])
def test_taylor_ranks_units_by_what_the_loss_loses(name: str) -> None:
    """Channels, heads, places in them, neurons and the residual stream; norms of weights say nothing here."""
    model = to_modules(family_program(name))
    inputs = FAMILIES[name].inputs(batch=ROWS)
    graph = analyse(model, inputs)
    weights = torch.randn(FAMILIES[name].build()(*inputs).shape, generator=torch.Generator().manual_seed(0))

    def weighted(outputs: Tensor, target: Tensor) -> Tensor:
        return (outputs * target).mean()

    scores = taylor_scores(model, graph, [(inputs, weights)], weighted)
    with torch.no_grad():
        whole = float(weighted(model(*inputs), weights))
        for group in (group for group in graph.groups if group.size >= 8):
            units = range(min(group.size, 24))
            removed = (masked_forward(model, graph, {group.name: [unit]}, *inputs) for unit in units)
            changes = [abs(float(weighted(outputs, weights)) - whole) for outputs in removed]
            assert spearmanr(scores[group.name][: len(changes)], changes).statistic > 0.6, group.name


def test_taylor_equals_the_finite_difference_of_a_gate() -> None:
    model, graph = loaded("plain_cnn")
    ((inputs, target),) = labelled((images(),), 4)
    scores = taylor_scores(model, graph, [(inputs, target)], loss)["conv2"]
    step = 1e-3
    weight = model.get_parameter("fc1.weight")
    for unit in range(12):
        changed = []
        for sign in (1, -1):
            with torch.no_grad():
                kept = weight.clone()
                weight.view(10, 12, 16)[:, unit] *= 1 + sign * step
                changed.append(float(loss(model.double()(inputs[0].double()), target)))
                model.float()
                weight.copy_(kept)
        assert scores[unit] == pytest.approx(abs(changed[0] - changed[1]) / (2 * step), rel=0.02, abs=1e-6)


def test_taylor_adds_up_batches_without_letting_them_cancel() -> None:
    model, graph = loaded("plain_cnn")
    (first,) = labelled((images(),), 4)
    inputs, target = first
    half = ROWS // 2
    batches = [((inputs[0][:half],), target[:half]), ((inputs[0][half:],), target[half:])]
    both = taylor_scores(model, graph, batches, loss)["conv1"]
    single = [taylor_scores(model, graph, [batch], loss)["conv1"] for batch in batches]
    np.testing.assert_allclose(both, (single[0] + single[1]) / 2, rtol=1e-5)
    assert (both >= taylor_scores(model, graph, [first], loss)["conv1"] - 1e-7).all()


def test_places_that_no_weight_reads_count_by_what_makes_them() -> None:
    model = to_modules(family_program("bert"))
    inputs = FAMILIES["bert"].inputs(batch=ROWS)
    graph = analyse(model, inputs)
    scores = taylor_scores(model, graph, labelled(inputs, 2), loss)
    assert scores["layers.0.query#2"].max() > 0
    assert scores["layers.0.query"].max() > 0


def test_taylor_leaves_the_model_as_it_is() -> None:
    model, graph = loaded("plain_cnn")
    model.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    taylor_scores(model, graph, labelled((images(),), 4), loss)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_activation_is_weights_times_the_norm_of_what_they_read() -> None:
    model, graph = loaded("mlp")
    x = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(2))
    scores = activation_scores(model, graph, [(x[:4],), (x[4:],)])
    with torch.no_grad():
        hidden = F.silu(model.get_submodule("bn")(model.get_submodule("fc1")(x)))
        hidden = torch.tanh(model.get_submodule("fc2")(hidden))
        expected = hidden.norm(dim=0) * model.get_parameter("fc3.weight").abs().sum(0)
    np.testing.assert_allclose(scores["fc2"], (expected / expected.mean()).numpy(), rtol=1e-4)


@pytest.mark.parametrize(("name", "index"), [("resnext", 1), ("unet", 1), ("gru", 0), ("lstm_stacked", 0)])
def test_silent_units_have_no_activation_score(name: str, index: int) -> None:
    """Whatever layer reads them: grouped and transposed convolutions, concatenations, recurrent layers."""
    model = to_modules(family_program(name))
    family = FAMILIES[name]
    graph = analyse(model, family.inputs(batch=2))

    def batches() -> Iterator[tuple[Tensor, ...]]:
        yield family.inputs(batch=3)

    scores = activation_scores(model, graph, batches())
    for group in graph.groups:
        assert scores[group.name].shape == (group.lanes * group.size,)
        assert scores[group.name].min() >= 0 < scores[group.name].max()
    name = graph.groups[index].name
    silent = to_modules(family_program(family.name))
    for tensor, by_axis in graph.axes.items():
        for axis, numbers in by_axis.items():
            removed = np.flatnonzero(graph.places(name)[numbers] == 0)
            if removed.size and (axis == 0 or tensor == "embedding.weight"):
                with torch.no_grad():
                    silent.state_dict()[tensor].index_fill_(axis, torch.from_numpy(removed), 0.0)
    assert activation_scores(silent, graph, batches())[name][0] < 0.02 * scores[name].mean()


def test_groups_that_no_layer_reads_have_their_norms() -> None:
    model = to_modules(family_program("bert"))
    inputs = FAMILIES["bert"].inputs(batch=2)
    graph = analyse(model, inputs)
    scores = activation_scores(model, graph, [inputs])
    np.testing.assert_array_equal(scores["layers.0.query#2"], unit_scores(model, graph, "layers.0.query#2", "l2"))

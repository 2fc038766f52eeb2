"""Scores are norms of coupled filters, each layer scaled to mean 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compressors.channels import analyse
from compressors.importance import keep_units, unit_scores
from compressors.programs import to_modules
from tests.models import example_inputs, exported


def test_keep_units_takes_the_best_in_original_order() -> None:
    scores = np.array([0.5, 2.0, 0.1, 2.0, 1.0])
    assert keep_units(scores, 3).tolist() == [1, 3, 4]
    assert keep_units(scores, 1).tolist() == [1]


@pytest.mark.parametrize(("importance", "order"), [("l1", 1), ("l2", 2)])
def test_norm_of_a_single_producer(importance: str, order: int) -> None:
    model, inputs = to_modules(exported("plain_cnn")), example_inputs("plain_cnn")
    norms = torch.linalg.vector_norm(model.get_parameter("conv1.weight").detach().flatten(1), ord=order, dim=1)
    scores = unit_scores(model, analyse(model, inputs), "conv1", importance)  # type: ignore[arg-type]
    np.testing.assert_allclose(scores, (norms / norms.mean()).numpy(), rtol=1e-5)


def test_coupled_layers_of_any_scale_count_alike() -> None:
    model, inputs = to_modules(exported("option_a_resnet")), example_inputs("option_a_resnet")
    graph = analyse(model, inputs)
    before = unit_scores(model, graph, "conv1")
    with torch.no_grad():
        model.get_parameter("conv1.weight").mul_(1000.0)
    np.testing.assert_allclose(unit_scores(model, graph, "conv1"), before, rtol=1e-5)
    assert before.mean() == pytest.approx(len(graph.group("conv1").layers))


def test_batch_norm_reads_the_scales() -> None:
    model, inputs = to_modules(exported("plain_cnn")), example_inputs("plain_cnn")
    scales = torch.tensor([1.0, -8.0, 2.0, 3.0, 0.0, 5.0, 6.0, 7.0])
    with torch.no_grad():
        model.get_parameter("bn1.weight").copy_(scales)
    scores = unit_scores(model, analyse(model, inputs), "conv1", "batch_norm")
    assert np.argsort(scores).tolist() == scales.abs().argsort().tolist()


def test_batch_norm_falls_back_to_l2_without_one() -> None:
    model, inputs = to_modules(exported("bert")), example_inputs("bert")
    graph = analyse(model, inputs)
    np.testing.assert_array_equal(
        unit_scores(model, graph, "block1.fc1", "batch_norm"), unit_scores(model, graph, "block1.fc1", "l2")
    )


def test_a_unit_over_several_positions_sums_them() -> None:
    model, inputs = to_modules(exported("resnext")), example_inputs("resnext")
    norms = torch.linalg.vector_norm(model.get_parameter("reduce.0.weight").detach().flatten(1), ord=1, dim=1)
    by_group = norms.reshape(3, 4)
    graph = analyse(model, inputs)
    # 'reduce.0' are the groups of the grouped convolution, which also makes them: 'reduce.0#2' the places in each.
    places = by_group.sum(0) / by_group.sum(0).mean()
    np.testing.assert_allclose(unit_scores(model, graph, "reduce.0#2", "l1"), places.numpy(), rtol=1e-5)
    later = torch.linalg.vector_norm(model.get_parameter("grouped.0.weight").detach().flatten(1), ord=1, dim=1)
    sums = [by_group.sum(1), later.reshape(3, 4).sum(1)]
    expected = sum(total / total.mean() for total in sums)
    assert isinstance(expected, torch.Tensor)
    np.testing.assert_allclose(unit_scores(model, graph, "reduce.0", "l1"), expected.numpy(), rtol=1e-5)


def test_a_group_counts_the_weights_that_read_it() -> None:
    model, inputs = to_modules(exported("plain_cnn")), example_inputs("plain_cnn")
    graph = analyse(model, inputs)
    producing = unit_scores(model, graph, "conv1", "l2")
    with torch.no_grad():
        model.get_parameter("conv2.weight")[:, 3] *= 100
    assert unit_scores(model, graph, "conv1", "group_l2").argmax() == 3
    np.testing.assert_array_equal(unit_scores(model, graph, "conv1", "l2"), producing)

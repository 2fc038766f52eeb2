"""Tuned centroids: the contract, the gradient, and what they are worth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressors.encodings import Codebook
from compressors.encodings.codebook import of_indices
from compressors.errors import InvalidRecipe
from compressors.layer_weights import LayerWeight
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import CentroidTuning, Recipe, UnstructuredPruning, WeightSharing
from compressors.registry import apply
from compressors.state import state_of
from compressors.substitution import substituted
from compressors.techniques.centroid_tuning import _Shared
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import exported

TUNING = CentroidTuning(samples=96, learning_rate=0.5)
CASES = (
    Case("plain_cnn", TUNING, (UnstructuredPruning(sparsity=0.5), WeightSharing(bits=3))),
    Case("tied_weights", TUNING, (WeightSharing(bits=4),)),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestCentroidTuning(TechniqueConformance):
    def test_values_move_and_weights_stay_together(self, case: Case, start: nn.Module, changed: nn.Module) -> None:
        before, after = state_of(start).encodings, state_of(changed).encodings
        assert before.keys() == after.keys()
        moved = 0
        for name, book in before.items():
            tuned = after[name]
            assert isinstance(book, Codebook)
            assert isinstance(tuned, Codebook)
            moved += not np.array_equal(book.centroids, tuned.centroids)
            for code in range(len(book.centroids)):
                assert len(np.unique(tuned.decode()[book.codes == code])) == 1
            np.testing.assert_array_equal(changed.get_parameter(name).detach().numpy(), tuned.decode())
        assert moved == len(before)
        for name, mask in state_of(changed).masks.items():
            assert not changed.get_parameter(name).detach()[~mask].any()


def test_a_value_moves_by_the_mean_gradient_of_its_weights() -> None:
    weight = nn.Parameter(torch.zeros(2, 3))
    codes = np.array([[0, 1, 1], [2, 1, 0]])
    part = _Shared.of(LayerWeight(("a",), ("a.weight",), weight, 0), of_indices(codes, np.array([-1.0, 0.0, 2.0])))
    slopes = torch.tensor([[1.0, 2.0, 3.0], [2.0, 5.0, 7.0]])
    (part.decoded()["a.weight"] * slopes).sum().backward()  # type: ignore[no-untyped-call]
    assert part.moves.grad is not None
    part.moves.data -= 0.5 * part.moves.grad
    np.testing.assert_allclose(part.codebook().centroids, [-1 - 0.5 * (1 + 7) / 2, 0, 2 - 0.5 * 2])


def test_it_recovers_what_sharing_lost() -> None:
    model = to_modules(exported("option_a_resnet"))
    context = context_for("option_a_resnet", model)
    inputs = torch.cat([batch[0] for batch in context.batches()])
    shared = apply(model, WeightSharing(bits=2), context)
    tuning = CentroidTuning(samples=480, learning_rate=0.1, alpha=1.0, temperature=1.0)
    tuned = apply(shared, tuning, context)

    def error(made: nn.Module) -> float:
        with torch.no_grad():
            return float((made(inputs).softmax(1) - model(inputs).softmax(1)).square().mean())

    assert error(tuned) < 0.7 * error(shared)


def test_substitution_puts_everything_back() -> None:
    lstm = nn.LSTM(3, 4, batch_first=True)
    model = nn.Sequential(lstm)
    names = list(model.state_dict())
    x = torch.rand(2, 5, 3)
    before = model(x)[0]
    gate = torch.ones(16, 3, requires_grad=True)
    with substituted(model, {"0.weight_ih_l0": lstm.get_parameter("weight_ih_l0").detach() * 0.5 * gate}):
        model(x)[0].sum().backward()
        halved = model(x)[0]
    assert gate.grad is not None and gate.grad.abs().sum() > 0
    assert not torch.equal(halved, before)
    assert torch.equal(model(x)[0], before)
    assert list(model.state_dict()) == names
    assert isinstance(lstm.weight_ih_l0, nn.Parameter)


def test_it_needs_shared_values() -> None:
    model = to_modules(exported("mlp"))
    context = context_for("mlp", model)
    with pytest.raises(InvalidRecipe, match="no layer has shared values; put weight_sharing in front of it"):
        apply(model, CentroidTuning(), context)
    with pytest.raises(InvalidRecipe, match="centroid_tuning repairs what a number format did"):
        run_recipe(model, Recipe((CentroidTuning(),)), context)
    with pytest.raises(InvalidRecipe, match=r"centroid_tuning.samples=0: must be at least 1"):
        CentroidTuning(samples=0)

"""Weight sharing: the contract, the bytes, and what stays exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import fx

from compressors.artifact import build_artifact
from compressors.encodings import Codebook
from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.layer_weights import layer_weights
from compressors.onnx_export import serialize
from compressors.packed_reader import decoded_tensors
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import Recipe, UnstructuredPruning, WeightSharing
from compressors.registry import apply
from compressors.state import state_of
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import exported

CASES = (
    Case("plain_cnn", WeightSharing(bits=3, weighting="activations")),
    Case("bert", WeightSharing(bits=5, layer_bits={"classifier": 2}, initialization="linear")),
    Case("tied_weights", WeightSharing(bits=4), (UnstructuredPruning(sparsity=0.6),)),
)


def books(model: fx.GraphModule) -> dict[str, Codebook]:
    return {name: book for name, book in state_of(model).encodings.items() if isinstance(book, Codebook)}


@pytest.mark.parametrize("case", CASES, ids=str)
class TestWeightSharing(TechniqueConformance):
    def test_layers_share_few_values(self, case: Case, changed: fx.GraphModule) -> None:
        config = case.config
        assert isinstance(config, WeightSharing)
        assert len(books(changed)) >= 2
        for name, book in books(changed).items():
            bits = config.layer_bits.get(name.rpartition(".")[0], config.bits)
            assert len(torch.unique(changed.get_parameter(name).detach())) == len(book.centroids) <= 2**bits
            np.testing.assert_array_equal(changed.get_parameter(name).detach().numpy(), book.decode())

    def test_zeros_of_a_mask_stay_zero(self, case: Case, start: fx.GraphModule, changed: fx.GraphModule) -> None:
        masks = state_of(start).masks
        assert bool(masks) == bool(case.before)
        for name, mask in masks.items():
            assert torch.equal(changed.get_parameter(name) != 0, mask)


def test_fewer_bits_make_smaller_files_and_larger_errors() -> None:
    model = to_modules(exported("plain_cnn"))
    context = context_for("plain_cnn", model)
    whole = len(serialize(build_artifact(model, context.example_inputs)))
    parameters = sum(weight.tensor.numel() for weight in layer_weights(model))
    sizes, errors = [], []
    for bits in (8, 6, 3, 2):
        made = apply(model, WeightSharing(bits=bits), context)
        sizes.append(len(serialize(build_artifact(made, context.example_inputs))))
        tables = sum(2 * len(book.centroids) for book in books(made).values())
        assert whole - sizes[-1] == pytest.approx((32 - bits) / 8 * parameters - tables, abs=1200)
        floats = state_of(made).floats
        errors.append(sum(float((floats[n] - made.get_parameter(n)).detach().square().sum()) for n in floats))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert errors[0] < 1e-4 * errors[-1]


def test_weighting_by_activations_disturbs_the_network_less() -> None:
    model = to_modules(exported("plain_cnn"))
    context = context_for("plain_cnn", model)
    inputs = torch.cat([batch[0] for batch in context.batches()])

    def error(weighting: str) -> float:
        made = apply(model, WeightSharing(bits=3, weighting=weighting), context)  # type: ignore[arg-type]
        with torch.no_grad():
            return float((made(inputs) - model(inputs)).square().mean())

    assert error("activations") < error("none")


def test_the_file_says_what_it_holds() -> None:
    """Names and values of all weights, decoded without a runtime."""
    model = to_modules(exported("plain_cnn"))
    context = context_for("plain_cnn", model)
    made = run_recipe(model, Recipe((UnstructuredPruning(sparsity=0.8), WeightSharing(bits=4))), context)
    decoded = decoded_tensors(serialize(build_artifact(made, context.example_inputs)))
    for name, parameter in made.named_parameters():
        np.testing.assert_array_equal(decoded[name], parameter.detach().numpy(), err_msg=name)


def test_wrong_use_is_refused_by_name() -> None:
    model = to_modules(exported("mlp"))
    context = context_for("mlp", model)
    with pytest.raises(InvalidRecipe, match=r"layer_bits\['fc1'\]=1: must lie in 2..8; use 2"):
        WeightSharing(layer_bits={"fc1": 1})
    with pytest.raises(InvalidRecipe, match=r"layer_bits\['fc2'\]: the layer is not among `layers`"):
        WeightSharing(layers=("fc1",), layer_bits={"fc2": 4})
    with pytest.raises(InvalidRecipe, match=r"weight_sharing.bits=9: must be one of 2, 3, 4, 5, 6, 7, 8"):
        Recipe.from_json({"version": 1, "steps": [{"technique": "weight_sharing", "bits": 9}]})
    with pytest.raises(InvalidRecipe, match=r"weight_sharing.layers: 'fc9' is no layer"):
        apply(model, WeightSharing(layers=("fc9",)), context)
    with pytest.raises(InvalidRecipe, match=r"reads calibration inputs \(weighting='activations'\)"):
        apply(model, WeightSharing(weighting="activations"), replace(context, calibration=None))
    with pytest.raises(UnsupportedModel, match="no layer has enough weights to get smaller with 8 bits"):
        apply(model, WeightSharing(bits=8, layers=("fc3",)), context)

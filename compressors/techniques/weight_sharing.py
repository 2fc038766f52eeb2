"""Weight sharing as a step of a recipe."""

from __future__ import annotations

from torch import Tensor, fx

from compressors.codebook_fitting import fit_codebook
from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.folding import folded_copy
from compressors.layer_weights import LayerWeight, check_known, selected_weights
from compressors.onnx_emission import array_of
from compressors.recipe import WeightSharing
from compressors.registry import Context, register
from compressors.state import state_of
from compressors.weight_encoding import store_encoding
from compressors.weight_scores import input_norms

_NAME = WeightSharing.technique
# Nodes and names that a codebook adds to the file.
_OVERHEAD = 64


@register(WeightSharing)
def share_weights(model: fx.GraphModule, config: WeightSharing, context: Context) -> fx.GraphModule:
    """A folded copy with codebooks. A draft does not read calibration inputs.

    Raises InvalidRecipe for layers that do not exist and for missing calibration inputs, UnsupportedModel if no layer
    would get smaller.
    """
    folded = folded_copy(model, context.example_inputs)
    weights = selected_weights(folded, config.layers, f"{_NAME}.layers")
    for name in config.layer_bits:
        check_known(f"{_NAME}.layer_bits", name, [layer for weight in weights for layer in weight.layers])
    importance = _importance(folded, weights, config, context)
    shared = 0
    for weight in weights:
        counts = importance.get(weight.name)
        book = fit_codebook(
            array_of(weight.tensor),
            next((config.layer_bits[name] for name in weight.layers if name in config.layer_bits), config.bits),
            initialization=config.initialization,
            importance=None if counts is None else array_of(counts),
            keep_zeros=True if weight.name in state_of(folded).masks else None,
            seed=context.seed,
        )
        if book.nbytes + _OVERHEAD < 4 * weight.tensor.numel():
            store_encoding(folded, weight, book)
            shared += 1
    if not shared:
        raise UnsupportedModel(f"{_NAME}: no layer has enough weights to get smaller with {config.bits} bits")
    return folded


def _importance(
    model: fx.GraphModule, weights: list[LayerWeight], config: WeightSharing, context: Context
) -> dict[str, Tensor]:
    if config.weighting == "none" or context.draft:
        return {}
    if context.calibration is None:
        raise InvalidRecipe(
            f"{_NAME} reads calibration inputs (weighting='activations') and none are given; add data, or use 'none'"
        )
    norms = input_norms(model, weights, context.batches(), context.seed)
    return {name: norm.square() for name, norm in norms.items()}

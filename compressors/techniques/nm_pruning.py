"""N:M pruning as a step of a recipe."""

from __future__ import annotations

import copy

import torch
from torch import fx

from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.layer_weights import LayerWeight, selected_weights
from compressors.recipe import SemiStructuredPruning
from compressors.registry import Context, register
from compressors.sparsity import masks_of, set_masks
from compressors.weight_scores import inputs_for, keep_n_of_m, score_weights

_NAME = SemiStructuredPruning.technique


@register(SemiStructuredPruning)
def prune_n_of_m(model: fx.GraphModule, config: SemiStructuredPruning, context: Context) -> fx.GraphModule:
    """A copy with zeros and their masks. A draft ranks without calibration data.

    Raises InvalidRecipe for layers that do not exist or, if named, do not fit; UnsupportedModel if none fits.
    """
    pruned: fx.GraphModule = copy.deepcopy(model)
    found = selected_weights(pruned, config.layers, f"{_NAME}.layers")
    weights = [weight for weight in found if not _length(weight) % config.m]
    if config.layers and len(weights) < len(found):
        wrong = next(weight for weight in found if _length(weight) % config.m)
        raise InvalidRecipe(
            f"{_NAME}.layers: {wrong.layers[0]!r} has {_length(wrong)} inputs, no multiple of m={config.m}; "
            "leave it out, or use another m"
        )
    if not weights:
        lengths = sorted({_length(weight) for weight in found})
        raise UnsupportedModel(f"{_NAME}.m={config.m}: no layer has a multiple of it as inputs, but {lengths}")
    batches = inputs_for(config.importance, context, _NAME)
    scores = score_weights(pruned, weights, config.importance, batches=batches, seed=context.seed)
    alive = masks_of(pruned, weights)
    masks = {}
    for weight in weights:
        earlier = alive.get(weight.name, torch.ones_like(weight.tensor, dtype=torch.bool))
        ranked = scores[weight.name].masked_fill(~earlier, -1)
        masks[weight.name] = keep_n_of_m(ranked, 1 - weight.output_axis, config.n, config.m) & earlier
    set_masks(pruned, weights, masks)
    return pruned.eval()


def _length(weight: LayerWeight) -> int:
    """Of the input axis: the one of channels that is not the outputs'."""
    return int(weight.tensor.shape[1 - weight.output_axis])

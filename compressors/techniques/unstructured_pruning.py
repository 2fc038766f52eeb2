"""Unstructured pruning as a step of a recipe."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx

from compressors.errors import InvalidRecipe
from compressors.layer_weights import LayerWeight, check_known, selected_weights
from compressors.recipe import UnstructuredPruning
from compressors.registry import Context, register
from compressors.sparsity import masks_of, set_masks
from compressors.weight_scores import inputs_for, masks_at, score_weights

_NAME = UnstructuredPruning.technique


@register(UnstructuredPruning)
def prune_weights(model: fx.GraphModule, config: UnstructuredPruning, context: Context) -> fx.GraphModule:
    """A copy with zeros and their masks. A draft ranks without calibration data.

    Raises InvalidRecipe for layers that do not exist, and for a threshold above all weights of a layer.
    """
    pruned: fx.GraphModule = copy.deepcopy(model)
    weights = selected_weights(pruned, config.layers, f"{_NAME}.layers")
    for name in config.layer_sparsity:
        check_known(f"{_NAME}.layer_sparsity", name, [layer for weight in weights for layer in weight.layers])
    if config.threshold is not None:
        masks = {weight.name: _above(weight, config) for weight in weights}
        earlier = masks_of(pruned, weights)
        set_masks(pruned, weights, {name: mask & earlier.get(name, mask) for name, mask in masks.items()})
        return pruned.eval()
    assert config.sparsity is not None
    batches = inputs_for(config.importance, context, _NAME)
    scores = score_weights(pruned, weights, config.importance, batches=batches, seed=context.seed)
    masks = masks_at(
        weights,
        scores,
        config.sparsity,
        scope=config.scope,
        layer_sparsity=config.layer_sparsity,
        alive=masks_of(pruned, weights),
    )
    set_masks(pruned, weights, masks)
    return pruned.eval()


def _above(weight: LayerWeight, config: UnstructuredPruning) -> Tensor:
    assert config.threshold is not None
    size = weight.tensor.detach().abs()
    unit = float(size.square().mean().sqrt()) if config.threshold_kind == "relative" else 1.0
    mask = size >= config.threshold * unit
    if not torch.any(mask):
        raise InvalidRecipe(
            f"{_NAME}.threshold={config.threshold}: above all weights of {weight.layers[0]}, whose largest is "
            f"{float(size.max()) / unit:.3g}; lower it, or leave the layer out of `layers`"
        )
    return mask

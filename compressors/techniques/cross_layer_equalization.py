"""Cross-layer equalisation as a step of a recipe."""

from __future__ import annotations

from torch import fx

from compressors.equalization import equalize, find_pairs
from compressors.errors import UnsupportedModel
from compressors.folding import folded_copy
from compressors.recipe import CrossLayerEqualization
from compressors.registry import Context, register


@register(CrossLayerEqualization)
def equalize_layers(model: fx.GraphModule, config: CrossLayerEqualization, context: Context) -> fx.GraphModule:
    """A folded copy with other weights and the same function. Raises UnsupportedModel if there is no pair of layers."""
    folded = folded_copy(model, context.example_inputs)
    pairs = find_pairs(folded, context.example_inputs)
    if not pairs:
        raise UnsupportedModel(
            "cross_layer_equalization: no layer passes its channels to another one through ReLU, pooling or the like "
            "alone; leave the step out"
        )
    equalize(folded, pairs)
    return folded

"""Power-of-two weights as a step of a recipe."""

from __future__ import annotations

import numpy as np
from torch import fx

from compressors.encodings.powers import PowerCodes, nearest_powers
from compressors.folding import folded_copy
from compressors.layer_weights import selected_weights
from compressors.onnx_emission import Array, array_of
from compressors.recipe import PowerOfTwo
from compressors.registry import Context, register
from compressors.weight_encoding import store_encoding

# Exponents of the largest level that are tried, from the one that no weight lies beyond.
_STEPS_DOWN = 4


@register(PowerOfTwo)
def round_to_powers(model: fx.GraphModule, config: PowerOfTwo, context: Context) -> fx.GraphModule:
    """A folded copy with encoded weights. Raises InvalidRecipe for layers that do not exist, UnsupportedModel for a
    model without weights."""
    folded = folded_copy(model, context.example_inputs)
    for weight in selected_weights(folded, config.layers, "power_of_two.layers"):
        store_encoding(folded, weight, _fitted(array_of(weight.tensor), config.bits, weight.output_axis))
    return folded


def _fitted(values: Array, bits: int, output_axis: int) -> PowerCodes:
    """Nearest levels, the largest one per channel by the least squared error."""
    axes = tuple(i for i in range(values.ndim) if i != output_axis)
    reach = np.abs(values).max(axis=axes, keepdims=True)
    top = np.exp2(np.ceil(np.log2(np.maximum(reach, np.finfo(np.float32).tiny)))).astype(np.float32)
    best, best_error = top, np.full(top.shape, np.inf)
    for step in range(_STEPS_DOWN):
        scale = top * np.float32(2.0**-step)
        difference = nearest_powers(values, bits, scale).decode() - values
        error = np.square(difference, dtype=np.float64).sum(axis=axes, keepdims=True)
        best, best_error = np.where(error < best_error, scale, best), np.minimum(error, best_error)
    return nearest_powers(values, bits, best)

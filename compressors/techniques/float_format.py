"""Short floating-point formats as a step of a recipe."""

from __future__ import annotations

import numpy as np
from torch import fx, nn

from compressors.encodings.floats import FloatEncoding, largest
from compressors.encodings.scales import shorten_scale
from compressors.errors import UnsupportedModel
from compressors.folding import folded_copy
from compressors.layer_weights import LayerWeight, selected_weights
from compressors.onnx_emission import array_of
from compressors.recipe import FloatFormat
from compressors.registry import Context, register
from compressors.weight_encoding import store_encoding

# A tensor in 16 bits costs a node of about this many bytes.
_NODE_BYTES = 24


@register(FloatFormat)
def store_as_floats(model: fx.GraphModule, config: FloatFormat, context: Context) -> fx.GraphModule:
    """A folded copy with encoded parameters. Raises InvalidRecipe for layers that do not exist, UnsupportedModel for a
    model without weights or with one that the format does not reach."""
    folded = folded_copy(model, context.example_inputs)
    weights = selected_weights(folded, config.layers, "float_format.layers")
    if config.format in ("float8_e4m3", "float8_e5m2"):
        for weight in weights:
            _store_scaled(folded, weight, config)
    else:
        for weight in [*weights, *_others(folded, weights, config)]:
            values = array_of(weight.tensor)
            if (reach := float(np.abs(values).max(initial=0))) > largest(config.format):
                raise UnsupportedModel(
                    f"float_format: {weight.name} holds {reach:.3g}, beyond the {largest(config.format):.3g} of "
                    f"{config.format}; use bfloat16, or leave the layer out"
                )
            if 2 * values.size > _NODE_BYTES:
                store_encoding(folded, weight, FloatEncoding.of(values, config.format))
    return folded


def _store_scaled(model: fx.GraphModule, weight: LayerWeight, config: FloatFormat) -> None:
    values = array_of(weight.tensor)
    axes = tuple(i for i in range(values.ndim) if i != weight.output_axis)
    reach = np.abs(values).max(axis=axes, keepdims=True) / largest(config.format)
    scale = shorten_scale(np.where(reach > 0, reach, 1).astype(np.float32))
    store_encoding(model, weight, FloatEncoding.of(values, config.format, scale))


def _others(model: fx.GraphModule, weights: list[LayerWeight], config: FloatFormat) -> list[LayerWeight]:
    """Parameters that are no weights (biases, norms): of the chosen layers, or all."""
    taken = {name for weight in weights for name in weight.names}
    found: dict[int, tuple[nn.Parameter, list[str]]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = name.rpartition(".")[0]
        if name not in taken and parameter.is_floating_point() and (not config.layers or owner in config.layers):
            found.setdefault(id(parameter), (parameter, []))[1].append(name)
    return [LayerWeight((names[0],), tuple(names), parameter, 0) for parameter, names in found.values()]

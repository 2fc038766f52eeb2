"""Dynamic quantisation as a step: weights put on their grid; the export does the rest."""

from __future__ import annotations

import functools

from torch import fx

from compressors.dynamic_quantization import dynamic_layers, quantize_dynamically, weight_grid
from compressors.folding import folded_copy
from compressors.integer_encoding import check_float_activations, encode_layers, encode_stored
from compressors.integer_grids import WeightRange
from compressors.onnx_export import export_onnx
from compressors.onnx_graph import GraphView
from compressors.recipe import DynamicQuantization
from compressors.registry import Context, register
from compressors.state import state_of
from compressors.weight_encoding import Rounding

_NAME = DynamicQuantization.technique


@register(DynamicQuantization)
def quantize(model: fx.GraphModule, config: DynamicQuantization, context: Context) -> fx.GraphModule:
    """A folded copy whose weights hold the values of their codes. Raises InvalidRecipe for layers that do not exist or
    have no integer kernel."""
    check_float_activations(model, _NAME)
    folded = folded_copy(model, context.example_inputs)
    state = state_of(folded)
    span: WeightRange = "max" if context.draft else config.weight_range
    state.activations = config
    if context.draft:
        encode_stored(folded, config.stored_bits, span, (), context, _NAME)
        return folded
    exported = export_onnx(folded, context.example_inputs)
    view = GraphView(exported)
    grid_of = functools.partial(weight_grid, config, span)
    encode_layers(folded, view, dynamic_layers(view, config), grid_of, Rounding(), context, _NAME)
    encode_stored(folded, config.stored_bits, span, (), context, _NAME)
    quantize_dynamically(export_onnx(folded, context.example_inputs), config, state.encodings)
    return folded

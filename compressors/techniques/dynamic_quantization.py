"""Dynamic quantisation as a step: weights put on their grid; the export does the rest."""

from __future__ import annotations

from torch import fx

from compressors.dynamic_quantization import dynamic_layers, quantize_dynamically
from compressors.encodings.integers import IntegerCodes
from compressors.folding import folded_copy
from compressors.integer_encoding import check_float_activations, encode_embeddings, encode_layers
from compressors.onnx_emission import Array
from compressors.onnx_export import export_onnx
from compressors.onnx_graph import GraphView
from compressors.recipe import DynamicQuantization
from compressors.registry import Context, register
from compressors.state import state_of
from compressors.weight_codes import nearest_codes


@register(DynamicQuantization)
def quantize(model: fx.GraphModule, config: DynamicQuantization, context: Context) -> fx.GraphModule:
    """A folded copy whose weights hold the values of their codes. Raises InvalidRecipe for layers that do not exist or
    have no integer kernel."""

    def nearest(layer: str, weights: Array, axis: int) -> IntegerCodes:
        bits, granularity = config.weight_bits_of(layer), config.weight_granularity
        return nearest_codes(weights, bits, axis=axis, granularity=granularity, observer=config.weight_observer)

    check_float_activations(model, "dynamic_quantization")
    folded = folded_copy(model, context.example_inputs)
    state = state_of(folded)
    if config.embeddings:
        encode_embeddings(folded, nearest)
    state.activations = config
    if context.draft:
        return folded
    exported = export_onnx(folded, context.example_inputs)
    view = GraphView(exported)
    encode_layers(folded, view, dynamic_layers(view, config), nearest)
    quantize_dynamically(export_onnx(folded, context.example_inputs), config, state.encodings)
    return folded

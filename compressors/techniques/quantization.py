"""Static quantisation as a step: batch norms folded, ranges calibrated, weights put on their grid; the export does the
rest."""

from __future__ import annotations

from torch import fx

from compressors.calibration import collect_ranges
from compressors.encodings.integers import IntegerCodes
from compressors.folding import folded_copy
from compressors.integer_encoding import check_float_activations, encode_embeddings, encode_layers
from compressors.onnx_emission import Array, array_of
from compressors.onnx_export import export_onnx
from compressors.onnx_graph import GraphView
from compressors.recipe import Quantization
from compressors.registry import Context, register
from compressors.state import StaticQuantization, state_of
from compressors.static_quantization import check_layers, integer_layers, quantize_onnx
from compressors.weight_codes import nearest_codes


@register(Quantization)
def quantize(model: fx.GraphModule, config: Quantization, context: Context) -> fx.GraphModule:
    """A folded copy whose weights hold the values of their codes and whose export is integers.

    Weights that an earlier step has encoded keep their codes. In a draft weights keep their values: the export makes
    codes of the same size. Raises InvalidRecipe for layers that do not exist.
    """

    def nearest(layer: str, weights: Array, axis: int) -> IntegerCodes:
        return nearest_codes(
            weights,
            config.bits_of(layer)[0],
            axis=axis,
            granularity=config.weight_granularity,
            scheme=config.weight_scheme,
            observer=config.weight_observer,
        )

    check_float_activations(model, "quantization")
    folded = folded_copy(model, context.example_inputs)
    state = state_of(folded)
    if config.embeddings:
        encode_embeddings(folded, nearest)
    if context.draft:
        state.activations = StaticQuantization(config, None)
        return folded
    exported = export_onnx(folded, context.example_inputs)
    check_layers(exported, config)
    batches = ([array_of(tensor) for tensor in batch] for batch in context.batches())
    ranges = collect_ranges(exported, batches, config, context.threads)
    view = GraphView(exported)
    encode_layers(folded, view, integer_layers(view, config), nearest)
    state.activations = StaticQuantization(config, ranges)
    # Refuses what does not fit now, not when the file is written.
    quantize_onnx(export_onnx(folded, context.example_inputs), config, ranges, state.encodings)
    return folded

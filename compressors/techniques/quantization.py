"""Static quantisation as a step: batch norms folded, ranges calibrated, weights put on their grid; the export does the
rest."""

from __future__ import annotations

import functools

from torch import fx

from compressors.calibration import collect_ranges
from compressors.folding import folded_copy
from compressors.integer_encoding import check_float_activations, encode_layers, encode_stored
from compressors.integer_grids import GridSpec, WeightRange
from compressors.onnx_emission import array_of
from compressors.onnx_export import export_onnx
from compressors.onnx_graph import GraphView
from compressors.recipe import Quantization
from compressors.registry import Context, register
from compressors.state import StaticQuantization, state_of
from compressors.static_quantization import check_layers, integer_layers, quantize_onnx
from compressors.weight_encoding import Rounding

_NAME = Quantization.technique


@register(Quantization)
def quantize(model: fx.GraphModule, config: Quantization, context: Context) -> fx.GraphModule:
    """A folded copy whose weights hold the values of their codes and whose export is integers.

    Weights that an earlier step has encoded keep their codes. In a draft weights keep their values: the export makes
    codes of the same size. Raises InvalidRecipe for layers that do not exist.
    """
    check_float_activations(model, _NAME)
    folded = folded_copy(model, context.example_inputs)
    state = state_of(folded)
    span: WeightRange = "max" if context.draft else config.weight_range
    if context.draft:
        encode_stored(folded, config.stored_bits, span, config.float_layers, context, _NAME)
        state.activations = StaticQuantization(config, None)
        return folded
    exported = export_onnx(folded, context.example_inputs)
    check_layers(exported, config)
    view = GraphView(exported)
    rounding = Rounding(method=config.rounding, iterations=config.iterations, bits=config.rounding_bits)
    grid_of = functools.partial(_grid_of, config, span)
    encode_layers(folded, view, integer_layers(view, config), grid_of, rounding, context, _NAME)
    encode_stored(folded, config.stored_bits, span, config.float_layers, context, _NAME)
    rounded = export_onnx(folded, context.example_inputs)
    batches = ([array_of(tensor) for tensor in batch] for batch in context.batches())
    ranges = collect_ranges(rounded, batches, config, context.threads)
    quantize_onnx(
        rounded, config, ranges, state.encodings
    )  # refuses what does not fit now, not when the file is written
    state.activations = StaticQuantization(config, ranges)
    return folded


def _grid_of(config: Quantization, span: WeightRange, layer: str) -> GridSpec:
    return GridSpec(
        bits=config.bits_of(layer)[0],
        scheme=config.weight_scheme,
        range=span,
        per_tensor=config.weight_granularity == "tensor",
    )

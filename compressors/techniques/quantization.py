"""Static quantisation as a step: batch norms folded, ranges calibrated, weights put on their grid; the export does the
rest."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import fx, nn

from compressors.batch_norm import fold_batch_norm
from compressors.calibration import collect_ranges
from compressors.onnx_emission import array_of
from compressors.onnx_export import export_onnx
from compressors.onnx_graph import GraphView, attributes
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
    folded = fold_batch_norm(model)
    state = state_of(folded)
    if config.embeddings:
        for name, module in folded.named_modules():
            if isinstance(module, nn.Embedding):
                _encode(folded, f"{name}.weight", config, config.weight_bits, axis=0)
    if context.draft:
        state.activations = StaticQuantization(config, None)
        return folded
    exported = export_onnx(folded, context.example_inputs)
    check_layers(exported, config)
    batches = ([array_of(tensor) for tensor in batch] for batch in context.batches())
    ranges = collect_ranges(exported, batches, config, context.threads)
    view = GraphView(exported)
    parameters = dict(folded.named_parameters(remove_duplicate=False))
    for layer, node in integer_layers(view, config).items():
        name = str(node.input[1])
        if name in parameters:
            axis = _output_axis(view, node, parameters[name])
            _encode(folded, name, config, config.bits_of(layer)[0], axis)
    state.activations = StaticQuantization(config, ranges)
    quantize_onnx(
        export_onnx(folded, context.example_inputs), config, ranges, state.encodings
    )  # refuses now, not later
    return folded


def _output_axis(view: GraphView, node: onnx.NodeProto, parameter: torch.Tensor) -> int:
    """Axis of the output channels in the parameter's own layout; exporters transpose the weights of linear layers."""
    if node.op_type == "Conv" or attributes(node).get("transB", 0):
        return 0
    return 1 if np.array_equal(view.constant(str(node.input[1])), array_of(parameter)) else 0  # type: ignore[arg-type]


@torch.no_grad()
def _encode(model: fx.GraphModule, name: str, config: Quantization, bits: int, axis: int) -> None:
    """Puts a parameter on its grid, under all of its names."""
    state = state_of(model)
    if name in state.encodings:
        return
    parameter = model.get_parameter(name)
    codes = nearest_codes(
        array_of(parameter),
        bits,
        axis=axis,
        granularity=config.weight_granularity,
        scheme=config.weight_scheme,
        observer=config.weight_observer,
    )
    parameter.copy_(torch.from_numpy(codes.decode()))
    for other, shared in model.named_parameters(remove_duplicate=False):
        if shared is parameter:
            state.encodings[other] = codes

"""Bias correction as a step of a recipe."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, fx

from compressors.bias_correction import Grid, add_biases, correct_biases, correctable
from compressors.encodings.floats import FloatEncoding
from compressors.errors import UnsupportedModel
from compressors.onnx_emission import array_of
from compressors.onnx_export import export_onnx
from compressors.onnx_graph import GraphView
from compressors.quantized_graph import QuantizedGraph
from compressors.recipe import BiasCorrection
from compressors.registry import Context, register
from compressors.state import StaticQuantization, state_of
from compressors.static_quantization import integer_layers


@register(BiasCorrection)
def correct(model: fx.GraphModule, config: BiasCorrection, context: Context) -> fx.GraphModule:
    """A copy with other biases. Raises UnsupportedModel if no layer with a bias has an encoded weight.

    In a draft, layers only get the biases that they lack.
    """
    corrected: fx.GraphModule = copy.deepcopy(model).eval()
    state = state_of(corrected)
    if context.draft:
        add_biases(corrected, correctable(corrected, dict(corrected.named_parameters())), value=1e-3)
        return corrected
    layers = correctable(corrected, state.encodings)
    if not layers:
        raise UnsupportedModel(
            "bias_correction: no convolution or linear layer has a rounded weight; leave the step out, or let the "
            "number format before it apply to such layers"
        )
    add_biases(corrected, layers)
    correct_biases(corrected, state.floats, layers, context.batches(), _activation_grids(model, context.example_inputs))
    for layer in layers:
        name = f"{layer}.bias"
        encoding = state.encodings.get(name)
        if isinstance(encoding, FloatEncoding):
            bias = corrected.get_parameter(name)
            stored = FloatEncoding.of(array_of(bias), encoding.name)
            state.encodings[name] = stored
            bias.data.copy_(torch.from_numpy(stored.decode()))
    return corrected


def _activation_grids(model: fx.GraphModule, example_inputs: Sequence[Tensor]) -> dict[str, Grid]:
    """By layer, how static quantisation rounds its input; empty while activations are float."""
    state = state_of(model)
    static = state.activations
    if not isinstance(static, StaticQuantization) or static.ranges is None:
        return {}
    view = GraphView(export_onnx(model, example_inputs))
    graph = QuantizedGraph(view, static.config, static.ranges, state.encodings)
    grids = {}
    for node in integer_layers(view, static.config):
        layer, name = view.layer_name(node), str(node.input[0])
        if layer is not None and name in static.ranges:
            grids[layer] = Grid(*graph.grid(name, *graph.range_of(name)))
    return grids

"""Integer forms of the hard activations of MobileNetV3 (Howard et al. 2019, arXiv:1905.02244, section 5.2)."""

from __future__ import annotations

import numpy as np
import onnx

from compressors.integer_weights import nearest_weights
from compressors.onnx_emission import MICROSOFT
from compressors.onnx_graph import attributes
from compressors.quantized_graph import LEVELS, Quantized, QuantizedGraph


def hard_sigmoid(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    settings = attributes(node)
    name = str(node.output[0])
    gate = _gate(
        graph, str(node.input[0]), settings.get("alpha", 0.2), settings.get("beta", 0.5), graph.output_name(name)
    )
    if gate is None:
        return False
    graph.set_integer(name, gate)
    return True


def hard_swish(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    """x * hard_sigmoid(x) in two integer operators: 16 us for 32 k numbers, through float32 44 us."""
    name = str(node.input[0])
    gate = _gate(graph, name, 1 / 6, 0.5, graph.emission.new_name())
    if gate is None:
        return False
    source = graph.integer(name)
    result = graph.fused_output(node)
    inputs = [source.name, *graph.parameters(source), gate.name, *graph.parameters(gate), *graph.parameters(result)]
    graph.add_integer("QLinearMul", inputs, result, MICROSOFT)
    return True


def _gate(graph: QuantizedGraph, name: str, slope: float, offset: float, output: str) -> Quantized | None:
    """clip(slope * x + offset, 0, 1) as a depthwise 1x1 convolution into the range 0..1, where saturation clips."""
    shape = graph.view.shape(name)
    if not graph.is_integer(name) or shape is None or len(shape) < 3 or shape[1] is None:
        return None
    source = graph.integer(name)
    weights = np.full((shape[1], *[1] * (len(shape) - 1)), slope)
    stored, bias = nearest_weights(weights).with_bias(np.full(shape[1], offset), source.scale)
    result = Quantized(output, float(np.float32(1 / LEVELS)), 0, LEVELS)
    inputs = [source.name, *graph.parameters(source), graph.emission.constant(stored.codes)]
    inputs += [graph.scale(stored.scales), graph.emission.constant(np.array(0, dtype=np.int8))]
    inputs += graph.parameters(result)
    if bias is not None:
        inputs.append(graph.emission.constant(bias))
    graph.add_node("QLinearConv", inputs, result.name, group=shape[1])
    return result

"""Integer forms of convolution, matrix product and batch norm: int8 weights, int32 biases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from compressors.channel_alignment import CHANNEL_STEP
from compressors.integer_recurrent import dynamic_lstm
from compressors.integer_weights import LayerWeights, nearest_weights
from compressors.onnx_emission import MICROSOFT, Array
from compressors.onnx_graph import attributes
from compressors.quantized_graph import Point, Quantized, QuantizedGraph

# ONNX Runtime's symmetric convolution kernels want input channels in fours; one of 3 channels takes the general kernel,
# which is 2.3 times slower (32x32 -> 16 channels: 28 against 12 us). Below this many positions the padding costs more.
_WORTHWHILE_POSITIONS = 256


def convolution(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    weights = graph.view.constant(node.input[1])
    bias_name = str(node.input[2]) if len(node.input) > 2 else ""
    bias = graph.view.constant(bias_name) if bias_name else None
    if weights is None or (bias_name and bias is None):
        return False
    source = _convolution_input(graph, str(node.input[0]))
    real_bias = np.zeros(weights.shape[0]) if bias is None else bias.astype(np.float64)
    if source.offset is not None:
        spatial = tuple(range(2, weights.ndim))
        real_bias = real_bias + weights.sum(axis=spatial).astype(np.float64) @ source.offset
    stored = graph.weights.of(str(node.input[1]), axis=0)
    if source.channels is not None:
        stored = stored.padded((weights.shape[0], source.channels, *weights.shape[2:]))
    stored, integer_bias = stored.with_bias(real_bias, source.scale)
    _write_convolution(graph, node, source, stored, integer_bias, str(node.input[1]), bias_name, attributes(node))
    return True


def batch_norm(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    """y = x * k + b per channel is a depthwise 1x1 convolution, for which there is an integer kernel."""
    shape = graph.view.shape(str(node.input[0]))
    parts = [graph.view.constant(name) for name in node.input[1:5]]
    if shape is None or len(shape) < 3 or any(part is None for part in parts):
        return False
    gain, shift, mean, variance = (np.asarray(part, dtype=np.float64) for part in parts)
    gain = gain / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    source = graph.integer(str(node.input[0]))
    weights = gain.reshape(-1, *[1] * (len(shape) - 1))
    stored, bias = nearest_weights(weights).with_bias(shift - mean * gain, source.scale)
    _write_convolution(graph, node, source, stored, bias, str(node.input[1]), str(node.input[2]), {"group": len(gain)})
    return True


def _write_convolution(
    graph: QuantizedGraph,
    node: onnx.NodeProto,
    source: Quantized,
    stored: LayerWeights,
    bias: Array | None,
    weight_name: str,
    bias_name: str,
    settings: dict[str, Any],
) -> None:
    result = graph.fused_output(node)
    emission = graph.emission
    inputs = [
        source.name,
        *graph.parameters(source),
        graph.weights.emit(weight_name, stored),
        graph.scale(stored.scales),
        # A single zero point of 0 is what the fast symmetric kernels look for.
        emission.constant(stored.zero_points if stored.zero_points.any() else np.array(0, dtype=np.int8)),
        *graph.parameters(result),
    ]
    if bias is not None:
        inputs.append(emission.named(bias_name, bias) if bias_name else emission.constant(bias))
    graph.add_integer("QLinearConv", inputs, result, **settings)


def gemm(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    """QGemm; its result stays float32 where no integer operator reads it, which keeps logits exact."""
    settings = attributes(node)
    weights = graph.view.constant(node.input[1])
    bias_name = str(node.input[2]) if len(node.input) > 2 else ""
    bias = graph.view.constant(bias_name) if bias_name else None
    if weights is None or settings.get("transA", 0) or (bias_name and bias is None):
        return False
    transposed = int(settings.get("transB", 0))
    axis = 0 if transposed else 1
    columns = weights.shape[axis]
    real_bias = np.zeros(columns) if bias is None else np.broadcast_to(bias, (columns,)) * settings.get("beta", 1.0)
    source = graph.integer(str(node.input[0]))
    stored = graph.weights.of(str(node.input[1]), axis).scaled(settings.get("alpha", 1.0))
    stored, integer_bias = stored.with_bias(real_bias, source.scale)
    emission = graph.emission
    inputs = [
        source.name,
        *graph.parameters(source),
        graph.weights.emit(str(node.input[1]), stored),
        graph.scale(stored.scales),
        emission.constant(stored.zero_points),
        emission.named(bias_name, integer_bias) if integer_bias is not None else "",
    ]
    name = str(node.output[0])
    extra = {"transB": 1} if transposed else {}
    if wants_integer(graph, name):
        result = graph.fused_output(node)
        graph.add_integer("QGemm", [*inputs, *graph.parameters(result)], result, MICROSOFT, **extra)
    else:
        while not inputs[-1]:
            inputs.pop()
        graph.add_node("QGemm", inputs, name, MICROSOFT, **extra)
        graph.set_real(name)
    return True


def matmul(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    """A linear layer on values of rank 3 and more: integer product, float32 result with the bias added by the kernel.

    Products of two activations (attention) stay float32: they would need two quantisations for one small product.
    """
    weights = graph.view.constant(node.input[1])
    if weights is None or weights.ndim != 2:
        return False
    name = str(node.output[0])
    bias: str | None = None
    addition = graph.view.only_consumer(name)
    if addition is not None and addition.op_type == "Add":
        other = next(str(side) for side in addition.input if side != name)
        content = graph.view.constant(other)
        if content is not None and content.shape == (weights.shape[1],):
            graph.absorbed.add(id(addition))
            name, bias = str(addition.output[0]), graph.emission.named(other, content)
    source = graph.integer(str(node.input[0]))
    stored = graph.weights.of(str(node.input[1]), axis=1)
    emission = graph.emission
    inputs = [
        source.name,
        graph.weights.emit(str(node.input[1]), stored),
        graph.scale(source.scale),
        graph.scale(stored.scales),
        graph.zero_point(source.zero_point),
        emission.constant(stored.zero_points),
        *([bias] if bias else []),
    ]
    graph.add_node("MatMulIntegerToFloat", inputs, name, MICROSOFT)
    graph.set_real(name)
    return True


def lstm(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    inputs = [graph.real(str(name)) if name and i not in (1, 2) else "" for i, name in enumerate(node.input)]
    dynamic_lstm(graph.emission, graph.weights, node, inputs)
    for name in node.output:
        graph.set_real(str(name))
    return True


def wants_integer(graph: QuantizedGraph, name: str) -> bool:
    """Whether a reader of `name`, or of the activation folded behind it, works on integers."""
    if name in graph.view.outputs:
        return False
    for reader in graph.view.consumers(name):
        if reader.op_type in ("Gemm", "Conv", "MatMul"):
            if not graph.stays_float(reader):
                return True
        elif reader.op_type in ("Relu", "Clip", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"):
            if wants_integer(graph, str(reader.output[0])):
                return True
        elif reader.op_type in ("Add", "Mul", "Concat") and any(graph.is_integer(str(i)) for i in reader.input):
            return True
    return False


def _convolution_input(graph: QuantizedGraph, name: str) -> Quantized:
    """The input of a convolution as integers. Where it is an input of the graph behind a normalisation per channel,
    (x - mean) / std, one QuantizeLinear with a scale and zero point per channel does both, and channels are padded to
    the kernels' step."""
    alone = all(_is_plain_convolution(graph, reader) for reader in graph.view.consumers(name))
    if graph.is_integer(name) or not alone or name in graph.view.outputs:
        return graph.integer(name)
    shape = graph.view.shape(name)
    if shape is None or len(shape) != 4 or shape[1] is None:
        return graph.integer(name)
    result = _normalizing_quantize(graph, name, shape[1]) or graph.integer(name)
    missing = -shape[1] % CHANNEL_STEP
    positions = (shape[2] or 0) * (shape[3] or 0)
    if missing and positions >= _WORTHWHILE_POSITIONS:
        padded = graph.emission.new_name()
        pads = graph.emission.ints([0, 0, 0, 0, 0, missing, 0, 0])
        graph.add_node("Pad", [result.name, pads, graph.zero_point(result.zero_point)], padded)
        result = replace(result, name=padded, channels=shape[1] + missing)
    graph.set_integer(name, result)
    return result


def _is_plain_convolution(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    """Whether `node` becomes an integer convolution that may take offset or padded channels."""
    constant = all(graph.view.constant(str(name)) is not None for name in node.input[1:] if name)
    dense = attributes(node).get("group", 1) == 1
    return node.op_type == "Conv" and constant and dense and not graph.stays_float(node)


def _normalizing_quantize(graph: QuantizedGraph, name: str, channels: int) -> Quantized | None:
    """QuantizeLinear of a * x + b: scale s / a, zero point z + round(b / s); the rounding is left as an offset, which
    the convolution's bias takes in. Only at the border, where padding means 0, an error of at most s / 2 remains."""
    chain = _normalization(graph, name, channels)
    if chain is None:
        return None
    origin, gain, shift = chain
    scale, zero_point, levels = graph.grid(name, *graph.range_of(name))
    steps = np.round(shift / scale)
    zero_points = zero_point + steps
    if (gain <= 0).any() or (zero_points < 0).any() or (zero_points > 255).any():
        return None
    result = Quantized(graph.emission.new_name(), scale, zero_point, levels, shift - steps * scale)
    graph.points[name] = Point(result, fixed=True)
    scales = graph.scale(scale / gain)
    points = graph.emission.constant(zero_points.astype(np.uint8))
    graph.add_integer("QuantizeLinear", [graph.real(origin), scales, points], result, axis=1)
    return result


def _normalization(graph: QuantizedGraph, name: str, channels: int) -> tuple[str, Array, Array] | None:
    """Follows Add, Sub, Mul and Div by constants per channel back from `name`: (origin, a, b) of a * origin + b."""
    gain, shift = np.ones(channels), np.zeros(channels)
    origin = name
    while (node := graph.view.producer(origin)) is not None and node.op_type in ("Add", "Sub", "Mul", "Div"):
        left, right = (graph.view.constant(str(side)) for side in node.input)
        content = right if right is not None else left
        if content is None or (right is None and node.op_type in ("Sub", "Div")):
            return None
        numbers = _per_channel(content, channels)
        if numbers is None:
            return None
        match node.op_type:
            case "Add":
                shift = shift + gain * numbers
            case "Sub":
                shift = shift - gain * numbers
            case "Mul":
                gain = gain * numbers
            case _:
                gain = gain / numbers
        origin = str(node.input[0] if right is not None else node.input[1])
    if origin == name or origin not in graph.view.inputs:
        return None
    return origin, gain, shift


def _per_channel(content: Array, channels: int) -> Array | None:
    """(channels,) from a scalar or a tensor that only differs along axis 1 of four."""
    if content.size == 1:
        return np.full(channels, float(content.reshape(-1)[0]))
    if content.ndim in (3, 4) and content.shape[-3:] == (channels, 1, 1) and content.size == channels:
        return content.reshape(channels).astype(np.float64)
    return None

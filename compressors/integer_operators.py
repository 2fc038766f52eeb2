"""Integer forms of what stands between the layers: joins, pools, moves and activations, and their registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from compressors.integer_activations import hard_sigmoid, hard_swish
from compressors.integer_layers import batch_norm, convolution, gemm, lstm, matmul
from compressors.onnx_emission import MICROSOFT
from compressors.onnx_graph import attributes, clip_bounds
from compressors.quantized_graph import Quantized, QuantizedGraph

Rewrite = Callable[[QuantizedGraph, onnx.NodeProto], bool]
# A shortcut's weight matrix is bytes in the file: worth 2 us of latency up to this many.
_SHORTCUT_LIMIT = 16_384


def move(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    """Reshape, Transpose, MaxPool and the like: the same numbers in another place."""
    if not graph.is_integer(str(node.input[0])):
        return False
    graph.move(node)
    return True


def resize(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    mode = attributes(node).get("mode", b"nearest")
    return mode == b"nearest" and move(graph, node)


def pad(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    """Constant padding with a number becomes padding with its integer; other modes only move numbers."""
    name = str(node.input[0])
    if not graph.is_integer(name):
        return False
    if attributes(node).get("mode", b"constant") != b"constant":
        graph.move(node)
        return True
    fill = graph.view.constant(str(node.input[2])) if len(node.input) > 2 and node.input[2] else None
    if len(node.input) > 2 and node.input[2] and fill is None:
        return False
    source = graph.integer(name)
    level = round((0.0 if fill is None else float(fill)) / source.scale) + source.zero_point
    if not 0 <= level <= source.levels:
        return False
    result = replace(source, name=graph.output_name(str(node.output[0])))
    graph.set_integer(str(node.output[0]), result)
    graph.add_node("Pad", [source.name, graph.real(str(node.input[1])), graph.zero_point(level)], result.name)
    return True


def slice_axes(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    if not graph.is_integer(str(node.input[0])):
        return False
    if not _strided_shortcut(graph, node):
        graph.move(node)
    return True


def _strided_shortcut(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    """ResNet's parameter-free shortcut x[:, :, ::s, ::s], channels padded with zeros, in one operator.

    A 1x1 convolution of stride s with a unit weight per channel computes exactly the same integers, in 3 us instead of
    the 11 us of two or three operators that walk over memory with strides.
    """
    source = graph.integer(str(node.input[0]))
    shape = graph.view.shape(str(node.input[0]))
    if shape is None or len(shape) != 4 or shape[1] is None or source.channels is not None:
        return False
    chain, strides = [node], {}
    while chain[-1].op_type == "Slice":
        axis_stride = _whole_axis_stride(graph, chain[-1])
        following = graph.view.only_consumer(str(chain[-1].output[0]))
        if axis_stride is None or axis_stride[0] not in (2, 3) or axis_stride[0] in strides or following is None:
            return False
        strides[axis_stride[0]] = axis_stride[1]
        chain.append(following)
    pads = graph.view.constant(str(chain[-1].input[1])) if chain[-1].op_type == "Pad" else None
    if pads is None or attributes(chain[-1]).get("mode", b"constant") != b"constant" or len(chain[-1].input) > 2:
        return False
    before, after = int(pads[1]), int(pads[5])
    if np.delete(pads, [1, 5]).any() or before < 0 or after < 0 or len(strides) != 2:
        return False
    channels = shape[1]
    total = before + channels + after
    if channels * total > _SHORTCUT_LIMIT:
        return False
    weights = np.zeros((total, channels, 1, 1), dtype=np.int8)
    weights[np.arange(channels) + before, np.arange(channels)] = 1
    name = str(chain[-1].output[0])
    result = replace(source, name=graph.output_name(name))
    graph.set_integer(name, result)
    emission = graph.emission
    inputs = [source.name, *graph.parameters(source), emission.constant(weights), graph.scale(1.0)]
    inputs += [emission.constant(np.array(0, dtype=np.int8)), *graph.parameters(result)]
    graph.add_node("QLinearConv", inputs, result.name, strides=[strides[2], strides[3]])
    graph.absorbed.update(id(item) for item in chain[1:])
    return True


def _whole_axis_stride(graph: QuantizedGraph, node: onnx.NodeProto) -> tuple[int, int] | None:
    """(axis, step) of a Slice that takes every step-th element of one whole axis."""
    parts = [graph.view.constant(str(name)) for name in node.input[1:]]
    shape = graph.view.shape(str(node.input[0]))
    if len(parts) != 4 or shape is None or any(part is None or part.size != 1 for part in parts):
        return None
    start, end, axis, step = (int(part.item()) for part in parts if part is not None)
    length = shape[axis]
    if start != 0 or step < 1 or (length is None or end < length):
        return None
    return axis % len(shape), step


def join(op: str) -> Rewrite:
    """QLinearAdd and QLinearMul, once one side is integer already."""

    def rewrite(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
        sides = [str(name) for name in node.input]
        if not any(graph.is_integer(name) for name in sides) or not all(_is_activation(graph, s) for s in sides):
            return False
        inputs = []
        for name in sides:
            side = graph.integer(name)
            inputs += [side.name, *graph.parameters(side)]
        result = graph.fused_output(node)
        graph.add_integer(op, [*inputs, *graph.parameters(result)], result, MICROSOFT)
        return True

    return rewrite


def _is_activation(graph: QuantizedGraph, name: str) -> bool:
    constant = graph.view.constant(name)
    return constant.dtype == np.float32 if constant is not None else graph.view.is_float(name)


def concatenate(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    sides = [str(name) for name in node.input]
    if not any(graph.is_integer(name) for name in sides) or not all(_is_activation(graph, s) for s in sides):
        return False
    parts = [graph.integer(name) for name in sides]
    if len({(part.scale, part.zero_point, part.levels) for part in parts}) == 1:
        name = str(node.output[0])
        moved = replace(parts[0], name=graph.output_name(name))
        graph.set_integer(name, moved)
        graph.add_node("Concat", [part.name for part in parts], moved.name, **attributes(node))
        return True
    result = graph.fused_output(node)
    inputs = graph.parameters(result)
    for part in parts:
        inputs += [part.name, *graph.parameters(part)]
    graph.add_integer("QLinearConcat", inputs, result, MICROSOFT, **attributes(node))
    return True


def unary(op: str) -> Rewrite:
    """Pools and table look-ups: one input, one output, each with its own scale."""

    def rewrite(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
        if not graph.is_integer(str(node.input[0])):
            return False
        source = graph.integer(str(node.input[0]))
        result = graph.fused_output(node)
        inputs = [source.name, *graph.parameters(source), *graph.parameters(result)]
        settings = attributes(node)
        if op == "QLinearGlobalAveragePool":
            settings["channels_last"] = 0
        graph.add_integer(op, inputs, result, MICROSOFT, **settings)
        return True

    return rewrite


def cut(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    """A Relu or Clip that no operator could take in: nothing to do if the range has no values beyond, else an integer
    Clip at the bounds' own integers."""
    name = str(node.input[0])
    bounds = clip_bounds(graph.view, node)
    if not graph.is_integer(name) or bounds is None:
        return False
    source = graph.integer(name)
    levels = [_level(source, bound) for bound in bounds]
    if levels == [0, source.levels]:
        graph.set_integer(str(node.output[0]), source)
        return True
    result = replace(source, name=graph.output_name(str(node.output[0])))
    graph.set_integer(str(node.output[0]), result)
    graph.add_node("Clip", [source.name, *(graph.zero_point(level) for level in levels)], result.name)
    return True


def _level(source: Quantized, bound: float) -> int:
    return int(np.clip(np.round(np.clip(bound / source.scale, -1e6, 1e6)) + source.zero_point, 0, source.levels))


def shape_of(graph: QuantizedGraph, node: onnx.NodeProto) -> bool:
    """The shape of an integer tensor is that of the float one: no bridge needed."""
    name = str(node.input[0])
    if not graph.is_integer(name) or graph.integer(name).channels is not None:
        return False
    graph.add_node("Shape", [graph.integer(name).name], str(node.output[0]), **attributes(node))
    return True


REWRITES: dict[str, Rewrite] = {
    "Conv": convolution,
    "BatchNormalization": batch_norm,
    "Gemm": gemm,
    "MatMul": matmul,
    "LSTM": lstm,
    "Add": join("QLinearAdd"),
    "Mul": join("QLinearMul"),
    "Concat": concatenate,
    "GlobalAveragePool": unary("QLinearGlobalAveragePool"),
    "AveragePool": unary("QLinearAveragePool"),
    "LeakyRelu": unary("QLinearLeakyRelu"),
    "Sigmoid": unary("QLinearSigmoid"),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Relu": cut,
    "Clip": cut,
    "Pad": pad,
    "Slice": slice_axes,
    "Resize": resize,
    "Shape": shape_of,
    **dict.fromkeys(
        ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Split", "Expand", "Gather", "Identity"),
        move,
    ),
}

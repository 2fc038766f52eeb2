"""An ONNX graph under conversion to integers: which values exist as uint8, which as float32, and the bridges between.

A real number r is stored as q = round(r / scale) + zero_point, clipped to 0..levels (Jacob et al. 2018,
arXiv:1712.05877, eq. 1). At 8 bits levels is 255, where uint8 ends by itself; fewer bits are uint8 too, with a Clip
behind the operator. Values are bridged by QuantizeLinear and DequantizeLinear only where a reader needs the other form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from compressors.activation_bits import activation_bits
from compressors.encodings.encoding import Encoding
from compressors.integer_grids import GridSpec
from compressors.integer_weights import IntegerWeights
from compressors.onnx_emission import Array, Emission
from compressors.onnx_graph import GraphView, attributes, clip_bounds, needed_nodes
from compressors.recipe import Quantization

LEVELS = 255
_SMALLEST_RANGE = 1e-6


@dataclass(frozen=True)
class Quantized:
    """A uint8 tensor of the graph.

    levels: the largest integer, 2^bits - 1.
    offset: per channel (axis 1), what must be added to scale * (q - zero_point) to get the real number; None: nothing.
    channels: size of axis 1 if it was padded for the kernel's sake, None: as in the float graph.
    """

    name: str
    scale: float
    zero_point: int
    levels: int = LEVELS
    offset: Array | None = None
    channels: int | None = None


def affine(low: float, high: float, levels: int = LEVELS) -> tuple[float, int]:
    """Scale and zero point of 0..levels for low..high, widened to hold 0, which padding must hit exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max(high - low, _SMALLEST_RANGE) / levels))
    return scale, int(np.clip(round(-low / scale), 0, levels))


def symmetric(low: float, high: float, levels: int = LEVELS) -> tuple[float, int]:
    """Scale and zero point with 0 in the middle of the levels, or at 0 if nothing is negative."""
    if low >= 0:
        return affine(0.0, high, levels)
    middle = (levels + 1) // 2
    reach = max(-low, high, _SMALLEST_RANGE)
    return float(np.float32(reach / (middle - 1 if middle > 1 else 1))), middle


@dataclass
class Point:
    """Where a float value becomes integers, for those who simulate the graph in float.

    readers: first outputs of the nodes that read the integers, or None if nothing sees the value unrounded.
    limit: the largest scale that an activation folded into the range leaves. fixed: the scale follows from constants.
    """

    quantized: Quantized
    readers: set[str] | None = None
    limit: float = math.inf
    fixed: bool = False


class QuantizedGraph:
    """The integer graph being written, node by node, next to the float graph `view` that it replaces."""

    def __init__(
        self,
        view: GraphView,
        config: Quantization,
        ranges: Mapping[str, tuple[float, float]],
        encodings: Mapping[str, Encoding] | None = None,
    ) -> None:
        self.view = view
        self.config = config
        self.emission = Emission()
        self.weights = IntegerWeights(view, self.emission, encodings or {}, self._grid_of)
        self.absorbed: set[int] = set()
        self.points: dict[str, Point] = {}
        self.moved: dict[str, str] = {}
        self.writing = ""
        self._ranges = ranges
        self._bits = activation_bits(view, config)
        self._integers: dict[str, Quantized] = {}
        self._floats: dict[str, str] = {}
        self._unbounded: dict[str, bool] = {}
        for name in view.inputs:
            self.emission.reserve(name)
        for node in view.nodes:
            for name in (*node.input, *node.output):
                self.emission.reserve(name)

    def finished(self) -> onnx.ModelProto:
        """The model made of what was written."""
        graph = self.view.graph
        nodes = needed_nodes(self.emission.nodes, self.view.outputs)
        return self.emission.finish(nodes, list(graph.input), list(graph.output))

    def stays_float(self, node: onnx.NodeProto) -> bool:
        """A layer that was asked to, and whatever reads or writes values that no range can hold."""
        named = self.view.layer_name(node) in self.config.float_layers
        return named or any(self.is_unbounded(str(name)) for name in (*node.input, *node.output))

    def is_integer(self, name: str) -> bool:
        return name in self._integers

    def integer(self, name: str) -> Quantized:
        """`name` as uint8, quantised by its calibrated range if it only exists in float32."""
        point = self.points.get(name)
        if point is not None and point.readers is not None:
            point.readers.add(self.writing)
        if name not in self._integers:
            constant = self.view.constant(name)
            if constant is not None:
                self._integers[name] = self._integer_constant(constant)
            else:
                self._integers[name] = self._quantize(name)
        return self._integers[name]

    def real(self, name: str) -> str:
        """`name` as float32 (or whatever type that is no activation)."""
        constant = self.view.constant(name)
        if constant is not None:
            return self.emission.named(name, constant)
        if name not in self._integers or name in self._floats:
            return self._floats.get(name, name)
        source = self._integers[name]
        self._floats[name] = self.add_node(
            "DequantizeLinear",
            [source.name, *self.parameters(source)],
            name if name in self.view.outputs else self.emission.new_name(),
        )
        return self._floats[name]

    def range_of(self, name: str) -> tuple[float, float]:
        """Raises ValueError if calibration did not see `name`."""
        if name not in self._ranges:
            raise ValueError(f"no activation range for {name!r}; calibrate this very model")
        return self._ranges[name]

    def grid(self, name: str, low: float, high: float) -> tuple[float, int, int]:
        """(scale, zero point, levels) of `name` for a range."""
        levels = 2 ** self._bits.get(name, self.config.activation_bits) - 1
        choose = symmetric if self.config.activation_scheme == "symmetric" else affine
        return *choose(low, high, levels), levels

    def is_unbounded(self, name: str) -> bool:
        """Whether `name` takes values that no range can hold, as masks do."""
        constant = self.view.constant(name)
        if constant is None:
            return bool(np.isinf(self._ranges.get(name, (0.0, 0.0))).any())
        if name not in self._unbounded:
            self._unbounded[name] = bool(constant.dtype == np.float32 and not np.isfinite(constant).all())
        return self._unbounded[name]

    def set_integer(self, name: str, quantized: Quantized) -> None:
        self._integers[name] = quantized

    def set_real(self, name: str) -> None:
        """Notes that a node writes `name` in float32."""
        self._floats[name] = name

    def output_name(self, name: str) -> str:
        """What the integer form of `name` is called; an output of the graph keeps its name for the float form."""
        return self.emission.new_name() if name in self.view.outputs else name

    def add_node(self, op: str, inputs: Sequence[str], output: str, domain: str = "", **extra: Any) -> str:
        node = onnx.helper.make_node(op, list(inputs), [output], domain=domain, **extra)
        self.emission.nodes.append(node)
        return output

    def add_integer(self, op: str, inputs: Sequence[str], result: Quantized, domain: str = "", **extra: Any) -> None:
        """Adds the node that writes `result`, and a Clip where the integers of its type go beyond its levels."""
        if result.levels == LEVELS:
            self.add_node(op, inputs, result.name, domain, **extra)
            return
        saturated = self.add_node(op, inputs, self.emission.new_name(), domain, **extra)
        self.add_node("Clip", [saturated, "", self.zero_point(result.levels)], result.name)

    def scale(self, number: float | Array) -> str:
        return self.emission.constant(np.asarray(number, dtype=np.float32))

    def zero_point(self, number: int) -> str:
        return self.emission.constant(np.array(number, dtype=np.uint8))

    def parameters(self, item: Quantized) -> list[str]:
        """Names of scale and zero point, as integer operators want them."""
        return [self.scale(item.scale), self.zero_point(item.zero_point)]

    def fused_output(self, node: onnx.NodeProto) -> Quantized:
        """The integer result of `node` with the Relus and Clips behind it folded into the range: saturation does their
        work.

        Their nodes are marked absorbed, and the last one's output is registered in place of the node's own.
        """
        name, bounds = str(node.output[0]), (-math.inf, math.inf)
        while (activation := self.view.only_consumer(name)) is not None:  # two in a row where a block has gone
            cut = clip_bounds(self.view, activation)
            if cut is None or not cut[0] <= 0 <= cut[1]:
                break
            self.absorbed.add(id(activation))
            name, bounds = str(activation.output[0]), (max(bounds[0], cut[0]), min(bounds[1], cut[1]))
        low, high = self.range_of(name)
        low, high = max(low, bounds[0]), min(high, bounds[1])
        result = Quantized(self.output_name(name), *self.grid(name, low, high))
        self._integers[name] = result
        self.points[name] = Point(result, limit=_largest_scale(result, *bounds))
        return result

    def copy_node(self, node: onnx.NodeProto) -> None:
        """Takes a node over in float32."""
        real = self._unpaired if self.view.layer_name(node) is not None else self.real
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        del copied.input[:]
        copied.input.extend(real(name) if name else "" for name in node.input)
        self.emission.nodes.append(copied)
        for name in node.output:
            self.set_real(name)

    def move(self, node: onnx.NodeProto) -> None:
        """Takes a node over that only moves its first input's numbers: same scale, same zero point."""
        source = self.integer(str(node.input[0]))
        names = []
        for output in node.output:
            names.append(self.output_name(output))
            self._integers[output] = replace(source, name=names[-1])
            self.moved[output] = str(node.input[0])
        inputs = [source.name, *(self.real(name) if name else "" for name in node.input[1:])]
        moved = onnx.helper.make_node(node.op_type, inputs, names, domain=node.domain, **attributes(node))
        self.emission.nodes.append(moved)

    def _grid_of(self, layer: str) -> GridSpec:
        config = self.config
        per_tensor = config.weight_granularity == "tensor"
        return GridSpec(bits=config.bits_of(layer)[0], scheme=config.weight_scheme, range="max", per_tensor=per_tensor)

    def _unpaired(self, name: str) -> str:
        """`name` as float32 for a layer with weights. ONNX Runtime 1.32 takes DequantizeLinear, layer, QuantizeLinear
        for a wish to quantise the layer's float weights (per tensor), so the same numbers come by plain arithmetic."""
        if name not in self._integers or name in self._floats:
            return self.real(name)
        source = self._integers[name]
        emission = self.emission
        result = emission.add("Cast", source.name, to=onnx.TensorProto.FLOAT)
        if source.zero_point:
            result = emission.add("Sub", result, self.scale(source.zero_point))
        self._floats[name] = emission.add("Mul", result, self.scale(source.scale))
        return self._floats[name]

    def _quantize(self, name: str) -> Quantized:
        result = Quantized(self.emission.new_name(), *self.grid(name, *self.range_of(name)))
        self.points[name] = Point(result, readers={self.writing})
        self.add_integer("QuantizeLinear", [self.real(name), *self.parameters(result)], result)
        return result

    def _integer_constant(self, content: Array) -> Quantized:
        scale, zero_point = affine(float(content.min()), float(content.max()))
        stored = np.clip(np.round(content / scale) + zero_point, 0, LEVELS).astype(np.uint8)
        return Quantized(self.emission.constant(stored), scale, zero_point)


def _largest_scale(quantized: Quantized, low: float, high: float) -> float:
    """The scale at which the ends of the grid reach low and high."""
    above, below = quantized.levels - quantized.zero_point, quantized.zero_point
    limits = [high / above] if above else []
    return min([*limits, *([-low / below] if below else [])], default=math.inf)

"""Dynamic int8 quantisation of an exported graph: a pass of our own that writes integer operators.

Every value between layers stays float32; a layer's input is quantised when it comes (DynamicQuantizeLinear), once for
all layers that read it. What ONNX Runtime 1.32 runs on x86: DynamicQuantizeMatMul and MatMulIntegerToFloat with int8
weights and a scale per column, DynamicQuantizeLSTM the same; ConvInteger takes one zero point per tensor, and int8
weights on a path five times slower than uint8 ones, so that weights go to it as uint8 with the middle as their zero
point, and their scales per channel stand behind it. Even so it is slower than a float32 convolution, which runs in a
blocked layout (64 channels of 16x16, one thread of a Zen 4 core: 90 us against 77 us).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto

from compressors.encodings.encoding import Encoding
from compressors.errors import InvalidRecipe
from compressors.integer_grids import GridSpec, WeightRange
from compressors.integer_recurrent import dynamic_lstm
from compressors.integer_weights import IntegerWeights
from compressors.onnx_emission import MICROSOFT, Array, Emission
from compressors.onnx_graph import GraphView, attributes, needed_nodes
from compressors.recipe import DynamicQuantization
from compressors.static_quantization import check_names

_DYNAMIC_LAYERS = ("Conv", "Gemm", "MatMul", "LSTM")


def quantize_dynamically(
    model: onnx.ModelProto, config: DynamicQuantization, encodings: Mapping[str, Encoding] | None = None
) -> onnx.ModelProto:
    """Returns the form of an exported float32 model whose layers multiply integers; `model` is left untouched.

    Weights: the codes of their encoding, else the nearest ones; biases stay float32. Raises InvalidRecipe for layers
    that do not exist or have no kernel, and for encodings that integer kernels cannot work with.
    """
    view = GraphView(model)
    chosen = {id(node) for node in dynamic_layers(view, config)}
    emission = Emission()
    for name in view.inputs:
        emission.reserve(name)
    for node in view.nodes:
        for name in (*node.input, *node.output):
            emission.reserve(name)
    weights = IntegerWeights(view, emission, encodings or {}, functools.partial(weight_grid, config, "max"))
    writer = _Writer(view, emission, weights)
    for node in view.nodes:
        if id(node) not in writer.absorbed:
            writer.write(node) if id(node) in chosen else writer.copy(node)
    nodes = needed_nodes(emission.nodes, view.outputs)
    return emission.finish(nodes, list(model.graph.input), list(model.graph.output))


def weight_grid(config: DynamicQuantization, span: WeightRange, layer: str) -> GridSpec:
    bits, per_tensor = config.weight_bits_of(layer), config.weight_granularity == "tensor"
    return GridSpec(bits=bits, range=span, per_tensor=per_tensor)


def dynamic_layers(view: GraphView, config: DynamicQuantization) -> list[onnx.NodeProto]:
    """Nodes of the layers that become integers."""
    check_names("dynamic_quantization.layers", config.layers, view.layer_names())
    check_names("dynamic_quantization.layer_bits", config.layer_bits, view.layer_names())
    able = {view.layer_name(node): node for node in view.nodes if _has_kernel(view, node)}
    for name in sorted({*config.layers, *config.layer_bits}):
        if name not in able:
            raise InvalidRecipe(
                f"dynamic_quantization: the runtime has no integer kernel for layer {name!r}; leave it out, "
                "stored_bits is the width of its weights"
            )
    return [
        n for n in view.nodes if _has_kernel(view, n) and (not config.layers or view.layer_name(n) in config.layers)
    ]


def _has_kernel(view: GraphView, node: onnx.NodeProto) -> bool:
    if view.layer_name(node) is None or node.op_type not in _DYNAMIC_LAYERS:
        return False
    settings = attributes(node)
    weights = view.constant(str(node.input[1]))
    return not settings.get("transA", 0) and (node.op_type != "MatMul" or (weights is not None and weights.ndim == 2))


@dataclass
class _Writer:
    """The graph being written. absorbed: nodes that another one has taken in."""

    view: GraphView
    emission: Emission
    weights: IntegerWeights
    absorbed: set[int] = field(default_factory=set)
    _quantized: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def write(self, node: onnx.NodeProto) -> None:
        match node.op_type:
            case "Conv":
                self._convolution(node)
            case "LSTM":
                for name in _constants(self.view, [*node.input[3:8]]):
                    self._constant(name)
                dynamic_lstm(self.emission, self.weights, node, list(node.input))
            case _:
                self._product(node)

    def copy(self, node: onnx.NodeProto) -> None:
        for name in _constants(self.view, node.input):
            self._constant(name)
        self.emission.nodes.append(node)

    def _constant(self, name: str) -> str:
        content = self.view.constant(name)
        assert content is not None
        return self.emission.named(name, content)

    def _quantize(self, name: str) -> tuple[str, ...]:
        """(integers, scale, zero point) of a value, one DynamicQuantizeLinear for all of its readers."""
        if name not in self._quantized:
            self._quantized[name] = self.emission.add_many("DynamicQuantizeLinear", name, outputs=3)
        return self._quantized[name]

    def _product(self, node: onnx.NodeProto) -> None:
        """A linear layer: Gemm, or MatMul with the Add of its bias."""
        settings = attributes(node)
        output, bias = str(node.output[0]), self._bias(node)
        if node.op_type == "MatMul":
            addition = self.view.only_consumer(output)
            other = _added_bias(self.view, node, addition)
            if addition is not None and other is not None:
                self.absorbed.add(id(addition))
                output, bias = str(addition.output[0]), self.view.constant(other)
        transposed = bool(settings.get("transB", 0))
        stored = self.weights.of(str(node.input[1]), axis=0 if transposed else 1).scaled(settings.get("alpha", 1.0))
        stored = stored.transposed() if transposed else stored
        integers, scale, zero_point = self._quantize(str(node.input[0]))
        inputs = [
            integers,
            self.weights.emit(str(node.input[1]), stored),
            scale,
            self.emission.constant(stored.scales),
            zero_point,
            self.emission.constant(stored.zero_points),
        ]
        if bias is not None:
            columns = stored.codes.shape[1]
            spread = np.broadcast_to(bias * np.float32(settings.get("beta", 1.0)), (columns,))
            inputs.append(self.emission.constant(spread))
        self.emission.nodes.append(onnx.helper.make_node("MatMulIntegerToFloat", inputs, [output], domain=MICROSOFT))

    def _convolution(self, node: onnx.NodeProto) -> None:
        name, output = str(node.input[1]), str(node.output[0])
        stored, emission = self.weights.of(name, axis=0), self.emission
        integers, scale, zero_point = self._quantize(str(node.input[0]))
        middle = emission.constant(np.array(2 ** (stored.bits - 1), dtype=np.uint8))
        weights = self.weights.emit(name, stored, unsigned=True)
        sums = emission.add("ConvInteger", integers, weights, zero_point, middle, **attributes(node))
        per_channel = [-1, *[1] * (stored.codes.ndim - 2)]
        scales = stored.scales.reshape(per_channel) if stored.scales.ndim else stored.scales
        step = emission.add("Mul", scale, emission.constant(scales))
        bias = self._bias(node)
        parts = [emission.add("Cast", sums, to=TensorProto.FLOAT), step]
        if bias is None:
            emission.nodes.append(onnx.helper.make_node("Mul", parts, [output]))
            return
        scaled = emission.add("Mul", *parts)
        shift = emission.constant(bias.reshape(per_channel))
        emission.nodes.append(onnx.helper.make_node("Add", [scaled, shift], [output]))

    def _bias(self, node: onnx.NodeProto) -> Array | None:
        return self.view.constant(str(node.input[2])) if len(node.input) > 2 and node.input[2] else None


def _constants(view: GraphView, names: list[str]) -> Iterator[str]:
    return (str(name) for name in names if name and view.constant(str(name)) is not None)


def _added_bias(view: GraphView, node: onnx.NodeProto, addition: onnx.NodeProto | None) -> str | None:
    """The constant vector that `addition` adds to the result of a MatMul."""
    if addition is None or addition.op_type != "Add":
        return None
    other = next((str(side) for side in addition.input if side != node.output[0]), "")
    content, weights = view.constant(other) if other else None, view.constant(str(node.input[1]))
    if content is None or weights is None or content.shape != (weights.shape[1],):
        return None
    return other

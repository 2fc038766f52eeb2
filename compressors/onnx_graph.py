"""Reading an ONNX graph: who produces and reads a value, what is constant, which shapes are known."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from compressors.onnx_emission import Array

INTEGER_LAYERS = ("Conv", "Gemm", "MatMul")  # for which runtimes have kernels on integers
RECURRENT = ("LSTM", "GRU", "RNN")
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", *RECURRENT)
_WEIGHT = re.compile(r"\.weight(_\w+)?$")


class GraphView:
    """An index over one model, which must not change while the view is in use."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.inputs: list[str] = [item.name for item in model.graph.input]
        self.outputs: list[str] = [item.name for item in model.graph.output]
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._arrays: dict[str, Array] = {}
        self._producers = {name: node for node in self.nodes for name in node.output}
        self._consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        inferred = shape_inference.infer_shapes(_without_weights(model)).graph
        known = [*inferred.input, *inferred.value_info, *inferred.output]
        self._types = {item.name: item.type.tensor_type for item in known}

    def constant(self, name: str) -> Array | None:
        """The content of an initialiser, None for anything else."""
        if name not in self._tensors:
            return None
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self._tensors[name])
        return self._arrays[name]

    def producer(self, name: str) -> onnx.NodeProto | None:
        return self._producers.get(name)

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        return self._consumers.get(name, [])

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """The one node that reads `name`, None if there are more, or if it is an output of the graph."""
        readers = self.consumers(name)
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Sizes per axis, None for a dynamic one; None if not even the rank is known."""
        tensor = self._types.get(name)
        if tensor is None or not tensor.HasField("shape"):
            return None
        return tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)

    def is_float(self, name: str) -> bool:
        """Whether a value (not an initialiser) is float32."""
        tensor = self._types.get(name)
        return tensor is not None and tensor.elem_type == TensorProto.FLOAT

    def activations(self) -> list[str]:
        """All float32 values that depend on the inputs, in topological order."""
        produced = [name for node in self.nodes for name in node.output]
        return [name for name in [*self.inputs, *produced] if self.is_float(name)]

    def layer_name(self, node: onnx.NodeProto) -> str | None:
        """The module that a node was exported from, read off its weight: 'features.0' of 'features.0.weight'."""
        if node.op_type not in LAYERS or self.constant(node.input[1]) is None:
            return None
        return layer_of(str(node.input[1]))

    def layer_names(self) -> tuple[str, ...]:
        names = (self.layer_name(node) for node in self.nodes)
        return tuple(dict.fromkeys(name for name in names if name is not None))


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with float initialisers reduced to their shapes: inference would copy them three times."""
    slim = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = slim.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        else:
            graph.initializer.append(tensor)
    return slim


def layer_of(parameter: str) -> str:
    """The module that a weight belongs to: 'rnn' of 'rnn.weight_ih_l0'; other names are returned as they are."""
    return _WEIGHT.sub("", parameter)


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def clip_bounds(view: GraphView, node: onnx.NodeProto) -> tuple[float, float] | None:
    """Where a Relu or a Clip with constant bounds cuts; None for any other node."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    if node.op_type != "Clip":
        return None
    bounds = [float("-inf"), float("inf")]
    for index, name in enumerate(node.input[1:]):
        content = view.constant(name) if name else None
        if name and content is None:
            return None
        if content is not None:
            bounds[index] = float(content)
    return bounds[0], bounds[1]


def needed_nodes(nodes: Iterable[onnx.NodeProto], outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """The nodes that `outputs` depend on, in their order."""
    needed, kept = set(outputs), []
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    kept.reverse()
    return kept

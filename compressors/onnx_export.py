"""A module graph written as ONNX without tracing: one emitter per operator, one pass to learn the shapes.

torch.onnx.export takes 3.5 to 5 s for a ResNet-20; a candidate's gate needs the file in well under a second, and
without the exporter's metadata (80 kB of 1.16 MB for that model). The emitters stand in the modules of
EMITTER_MODULES; importing this module registers them.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, fx, nn

from compressors import (
    onnx_arrangements,
    onnx_layers,
    onnx_math,
    onnx_pointwise,
    onnx_products,
    onnx_recurrent,
    onnx_statistics,
    onnx_tensors,
)
from compressors.batch_norm import fold_batch_norm
from compressors.errors import ParityError, UnsupportedModel
from compressors.onnx_emission import (
    ELEMENT_TYPES,
    EMITTERS,
    Emission,
    Names,
    Size,
    Value,
    array_of,
)
from compressors.onnx_graph import needed_nodes
from compressors.runtime import Session
from compressors.tied_weights import store_once

EMITTER_MODULES = (
    onnx_layers,
    onnx_recurrent,
    onnx_pointwise,
    onnx_math,
    onnx_products,
    onnx_statistics,
    onnx_tensors,
    onnx_arrangements,
)


def export_onnx(module: fx.GraphModule, example_inputs: Sequence[Tensor]) -> onnx.ModelProto:
    """The module in eval mode, BatchNorms folded, as ONNX opset 21 with a free first axis "batch".

    example_inputs: one tensor per placeholder, axis 0 the batch; only their shapes and dtypes matter. Inputs are called
    like the placeholders, outputs "output", or "output_0", "output_1", ...; parameters keep their names.
    Raises UnsupportedModel for an operator without an emitter.
    """
    return trace_onnx(module, example_inputs)[0]


@dataclass(frozen=True)
class ValueNames:
    """How an exported graph calls things. values: the result of each fx node, by the node's name; only single tensors.
    origins: the fx node that each value comes from, by the value's name."""

    values: Mapping[str, str]
    origins: Mapping[str, str]


def trace_onnx(module: fx.GraphModule, example_inputs: Sequence[Tensor]) -> tuple[onnx.ModelProto, ValueNames]:
    """`export_onnx`, and which value is which node's."""
    observed = _observe(module, tuple(example_inputs))
    folded = fold_batch_norm(observed)
    emission = Emission()
    modules = dict(folded.named_modules())
    bindings: dict[fx.Node, Any] = {}
    origins: dict[str, str] = {}
    inputs: list[onnx.ValueInfoProto] = []
    outputs: list[onnx.ValueInfoProto] = []
    batch = example_inputs[0].shape[0]
    for node in folded.graph.nodes:
        if node.op == "placeholder":
            example = node.meta["val"]
            bindings[node] = _value(emission.reserve(str(node.target)), example)
            inputs.append(_value_info(str(node.target), example, batch))
        elif node.op == "output":
            outputs = _finish(emission, node, bindings, batch)
        else:
            before = len(emission.nodes)
            bindings[node] = _emit(emission, node, modules, bindings)
            written = (name for item in emission.nodes[before:] for name in item.output)
            origins.update(dict.fromkeys(written, node.name))
    public = {item.input[0]: item.output[0] for item in emission.nodes[len(emission.nodes) - len(outputs) :]}
    kept = _tidy(emission.nodes, [info.name for info in outputs])
    still = {name for item in kept for name in item.output} | {info.name for info in inputs}
    values = {node.name: value.name for node, value in bindings.items() if isinstance(value, Value)}
    renamed = {name: public[name] for name in values.values() if name not in still and name in public}
    names = ValueNames(
        values={node: renamed.get(name, name) for node, name in values.items()},
        origins={renamed.get(name, name): node for name, node in origins.items()},
    )
    return emission.finish(kept, inputs, outputs), names


def serialize(model: onnx.ModelProto) -> bytes:
    """The bytes of the artifact, equal weights stored once; its length is the model's size."""
    content: bytes = store_once(model).SerializeToString(deterministic=True)
    return content


def check_parity(module: fx.GraphModule, session: Session, inputs: Sequence[Tensor], *, tolerance: float) -> float:
    """Largest absolute difference between the module in eval mode and the session on `inputs`.

    Raises ParityError if it exceeds `tolerance`, or if number or shapes of the outputs differ.
    """
    training = module.training
    module.eval()
    with torch.no_grad():
        produced = module(*inputs)
    module.train(training)
    expected = [produced] if isinstance(produced, Tensor) else list(produced)
    actual = session.run([tensor.numpy() for tensor in inputs])
    shapes = ([tuple(e.shape) for e in expected], [tuple(a.shape) for a in actual])
    if shapes[0] != shapes[1]:
        raise ParityError(f"outputs have shapes {shapes[0]} in torch and {shapes[1]} in the runtime", max_error=np.inf)
    errors = [np.abs(e.numpy().astype(np.float64) - a).max(initial=0.0) for e, a in zip(expected, actual, strict=True)]
    worst = float(max(errors, default=0.0))
    if not worst <= tolerance:
        raise ParityError(f"outputs differ by {worst:.3g}, above the tolerance {tolerance:.3g}", max_error=worst)
    return worst


class _Observer(fx.Interpreter):
    """Runs the graph once and notes each result; knows which nodes depend on an input."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.dynamic: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "placeholder" or any(source in self.dynamic for source in n.all_input_nodes):
            self.dynamic.add(n)
        n.meta["val"] = result
        n.meta["constant"] = n not in self.dynamic
        return result


def _observe(module: fx.GraphModule, example_inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """A copy in eval mode whose nodes carry their results under meta["val"]."""
    observed = copy.deepcopy(module).eval()
    with torch.no_grad():
        _Observer(observed).run(*example_inputs)
    return observed


def _emit(
    emission: Emission,
    node: fx.Node,
    modules: Mapping[str, nn.Module],
    bindings: Mapping[fx.Node, Any],
) -> Any:
    """Adds what `node` computes to the graph and returns what its users will see for it."""
    result = node.meta["val"]
    if node.op == "get_attr" and isinstance(result, Tensor):
        return _value(emission.parameter(str(node.target), result), result, constant=True)
    if node.meta["constant"]:
        return _constant(emission, result)
    if node.target in _SIZE_ARITHMETIC:
        return _size_arithmetic(emission, node, bindings)
    if node.target is operator.getitem:
        item = bindings[node.args[0]][node.args[1]]  # type: ignore[index]
        if isinstance(item, Value) and not item.name:
            raise UnsupportedModel(f"node {node.name!r}: output {node.args[1]} of {node.args[0]} is not exported")
        return item
    module = modules[str(node.target)] if node.op == "call_module" else None
    key: Any = type(module) if module is not None else node.target
    emitter = EMITTERS.get(key)
    if emitter is None:
        name = key.__name__ if isinstance(key, type) else str(key)
        raise UnsupportedModel(
            f"node {node.name!r}: operator {name} has no ONNX emitter; write that part with supported operators"
        )
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda source: bindings[source])
    emission.results = _metas(result)
    emission.prefix = str(node.target) if module is not None else ""
    try:
        names = emitter(emission, *((module,) if module is not None else ()), *args, **kwargs)
    except UnsupportedModel as error:
        raise UnsupportedModel(f"node {node.name!r} ({key}): {error}") from error
    finally:
        emission.prefix = ""
    return names if isinstance(names, Size) else _values(names, result)


def _values(names: Names, result: Any) -> Any:
    """A `Value` per name, nested as the results are."""
    if isinstance(names, str):
        return _value(names, result)
    return tuple(_values(name, part) for name, part in zip(names, result, strict=True))


def _value(name: str, tensor: Tensor, *, constant: bool = False) -> Value:
    return Value(name, tuple(tensor.shape), tensor.dtype, tensor if constant else None)


def _metas(result: Any) -> tuple[Value, ...]:
    if isinstance(result, Tensor):
        return (_value("", result),)
    if isinstance(result, (tuple, list)):
        return tuple(value for part in result for value in _metas(part))
    return ()


def _constant(emission: Emission, result: Any) -> Any:
    """Whatever no input decides was computed by the observing run; it becomes an initialiser."""
    if isinstance(result, Tensor):
        return _value(emission.constant(array_of(result)), result, constant=True)
    if isinstance(result, (tuple, list)):
        return tuple(_constant(emission, item) for item in result)
    return result


_SIZE_ARITHMETIC: dict[Any, str] = {
    operator.mul: "Mul",
    operator.add: "Add",
    operator.sub: "Sub",
    operator.floordiv: "Div",
}


def _size_arithmetic(emission: Emission, node: fx.Node, bindings: Mapping[fx.Node, Any]) -> Size:
    sides: list[Any] = [bindings[arg] if isinstance(arg, fx.Node) else arg for arg in node.args]
    names = [side.name if isinstance(side, Size) else emission.ints([side]) for side in sides]
    return Size(emission.add(_SIZE_ARITHMETIC[node.target], *names), int(node.meta["val"]))


def _value_info(name: str, tensor: Tensor, batch: int) -> onnx.ValueInfoProto:
    shape: list[int | str] = list(tensor.shape)
    if shape and shape[0] == batch:
        shape[0] = "batch"
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[tensor.dtype], shape)


def _finish(
    emission: Emission, node: fx.Node, bindings: Mapping[fx.Node, Any], batch: int
) -> list[onnx.ValueInfoProto]:
    """Gives the results their public names."""
    returned: Any = node.args[0]
    sources: list[fx.Node] = list(returned) if isinstance(returned, (tuple, list)) else [returned]
    infos = []
    for index, source in enumerate(sources):
        name = "output" if len(sources) == 1 else f"output_{index}"
        emission.nodes.append(helper.make_node("Identity", [bindings[source].name], [name]))
        infos.append(_value_info(name, source.meta["val"], batch))
    return infos


def _drop_unread(node: onnx.NodeProto, read: Container[str]) -> None:
    """Nameless outputs are not computed."""
    names = [name if name in read else "" for name in node.output]
    while not names[-1]:
        names.pop()
    del node.output[:]
    node.output.extend(names)


def _tidy(nodes: list[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """Drops nodes that no output needs, results of recurrent layers that nobody reads, and the Identity before an
    output where its source has no other reader."""
    kept = needed_nodes(nodes, outputs)
    for node in kept:
        if node.op_type in onnx_recurrent.GATE_ORDER:
            _drop_unread(node, {name for reader in kept for name in reader.input})
    readers = Counter(name for node in kept for name in node.input)
    producers = {name: node for node in kept for name in node.output}
    result = []
    for node in kept:
        source = node.input[0] if node.op_type == "Identity" else ""
        if node.output[0] in outputs and readers[source] == 1 and source in producers:
            producer = producers[source]
            producer.output[list(producer.output).index(source)] = node.output[0]
        else:
            result.append(node)
    return result

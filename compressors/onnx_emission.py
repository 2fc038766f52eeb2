"""What an emitter works with: the values of the graph so far, and ways to add nodes and constants to it.

An emitter is a function `(emission, *args, **kwargs) -> name(s) of the result`. For a `call_function` node it gets the
node's own arguments, for a `call_module` node the module first; every fx.Node among them is replaced by a `Value`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

Array = npt.NDArray[Any]

OPSET = 21
IR_VERSION = 10
MICROSOFT = "com.microsoft"
FUNCTIONS = "bantam"  # domain of functions that a model carries itself

ELEMENT_TYPES: dict[torch.dtype, int] = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.float16: TensorProto.FLOAT16,
    torch.int64: TensorProto.INT64,
    torch.int32: TensorProto.INT32,
    torch.int8: TensorProto.INT8,
    torch.uint8: TensorProto.UINT8,
    torch.bool: TensorProto.BOOL,
}


@dataclass(frozen=True)
class Value:
    """A tensor of the graph. shape: as seen with the example inputs. constant: its content if no input decides it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    constant: Tensor | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(frozen=True)
class Size:
    """A dynamic dimension. name: an int64 tensor of shape (1,) in the graph. length: with the example inputs."""

    name: str
    length: int


Dimension = int | Size
Names = str | tuple["Names", ...]
Emitter = Callable[..., Names | Size]
_Function = TypeVar("_Function", bound=Emitter)

EMITTERS: dict[Any, Emitter] = {}


def emits(*targets: Any) -> Callable[[_Function], _Function]:
    """Registers a function as the emitter of module classes or ATen overloads. A second registration raises."""

    def register(function: _Function) -> _Function:
        for target in targets:
            if target in EMITTERS:
                raise ValueError(f"{target}: an emitter is registered already; an operator has exactly one")
            EMITTERS[target] = function
        return function

    return register


class Emission:
    """A graph under construction. `result` describes what the node at hand must produce."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.results: tuple[Value, ...] = ()
        self.prefix = ""
        self.functions: dict[str, onnx.FunctionProto] = {}
        self._taken: set[str] = set()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._names = _short_names()

    @property
    def result(self) -> Value:
        return self.results[0]

    def reserve(self, name: str) -> str:
        """Keeps `name` for a graph input, output or parameter, so that no intermediate value takes it."""
        self._taken.add(name)
        return name

    def new_name(self) -> str:
        return next(name for name in self._names if name not in self._taken)

    def add(self, op: str, *inputs: str | Value, outputs: int = 1, domain: str = "", **attributes: Any) -> str:
        """Adds a node with one used output; attributes that are None are left out. Returns the output's name."""
        return self.add_many(op, *inputs, outputs=outputs, domain=domain, **attributes)[0]

    def add_many(
        self, op: str, *inputs: str | Value, outputs: int, domain: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        names = tuple(self.new_name() for _ in range(outputs))
        kept = {key: value for key, value in attributes.items() if value is not None}
        sources = [item.name if isinstance(item, Value) else item for item in inputs]
        while sources and not sources[-1]:
            sources.pop()
        self.nodes.append(helper.make_node(op, sources, list(names), domain=domain, **kept))
        return names

    def parameter(self, name: str, tensor: Tensor) -> str:
        """An initialiser under its own name; the name of this call's module goes in front of it."""
        return self.named(f"{self.prefix}.{name}" if self.prefix else name, array_of(tensor))

    def named(self, name: str, content: Array) -> str:
        """An initialiser under `name`. The same content again returns the first; other content (a layer that is called
        twice and quantised differently) gets a number behind the name."""
        array = np.asarray(content)
        tensor = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
        chosen, number = name, 1
        while chosen in self.initializers and not _same(self.initializers[chosen], tensor):
            chosen, number = f"{name}_{number}", number + 1
        if chosen not in self.initializers:
            tensor.name = chosen
            self.initializers[self.reserve(chosen)] = tensor
        return chosen

    def constant(self, content: Array) -> str:
        """An initialiser with a short name; equal constants share one."""
        array = np.asarray(content)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self.new_name()
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            self._constants[key] = name
        return self._constants[key]

    def raw(self, tensor: onnx.TensorProto) -> str:
        """An initialiser with a short name, as it is; for element types that numpy lacks. Sets the tensor's name."""
        tensor.name = self.new_name()
        self.initializers[self.reserve(tensor.name)] = tensor
        return str(tensor.name)

    def call(self, function: onnx.FunctionProto, *inputs: str, **attributes: Any) -> str:
        """A call of a function that the model carries itself; runtimes inline it when they load the file."""
        self.functions[function.name] = function
        return self.add(function.name, *inputs, domain=FUNCTIONS, **attributes)

    def ints(self, numbers: Sequence[int]) -> str:
        return self.constant(np.array(list(numbers), dtype=np.int64))

    def scalar(self, number: float | bool, dtype: torch.dtype) -> str:
        return self.constant(array_of(torch.tensor(number, dtype=dtype)))

    def shape(self, dimensions: Sequence[Dimension]) -> str:
        """An int64 vector; a constant unless a dimension is dynamic."""
        if not any(isinstance(d, Size) for d in dimensions):
            return self.ints([int(d) for d in dimensions if not isinstance(d, Size)])
        parts = [d.name if isinstance(d, Size) else self.ints([d]) for d in dimensions]
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=0)

    def finish(
        self,
        nodes: Sequence[onnx.NodeProto],
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.ModelProto:
        """The model made of `nodes` and the initialisers that they read."""
        used = {name for node in nodes for name in node.input}
        initializers = [tensor for name, tensor in self.initializers.items() if name in used]
        opsets = [helper.make_opsetid("", OPSET)]
        if any(node.domain == MICROSOFT for node in nodes):
            opsets.append(helper.make_opsetid(MICROSOFT, 1))
        called = {node.op_type for node in nodes if node.domain == FUNCTIONS}
        functions = [function for name, function in self.functions.items() if name in called]
        if functions:
            opsets.append(helper.make_opsetid(FUNCTIONS, 1))
        graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
        return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=IR_VERSION)

    def cast(self, name: str, dtype: torch.dtype) -> str:
        return self.add("Cast", name, to=ELEMENT_TYPES[dtype])


def _same(one: TensorProto, other: TensorProto) -> bool:
    """Equal but for the name."""
    return bool(one.raw_data == other.raw_data and one.dims == other.dims and one.data_type == other.data_type)


def array_of(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().contiguous().numpy()
    return array


def _short_names() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ...: names are bytes in the file."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    length = 1
    while True:
        for index in range(26**length):
            digits = []
            for _ in range(length):
                index, digit = divmod(index, 26)
                digits.append(letters[digit])
            yield "".join(reversed(digits))
        length += 1

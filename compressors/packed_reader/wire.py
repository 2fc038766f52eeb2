"""Reads protocol buffers far enough to find things in an ONNX file, without the onnx package.

Wire format: https://protobuf.dev/programming-guides/encoding/. Field numbers: onnx.proto of ONNX 1.17.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .errors import PackedFileError

# Fields of the messages that matter here.
MODEL_GRAPH: Final = 7
MODEL_FUNCTION: Final = 25
GRAPH_NODE: Final = 1
GRAPH_INITIALIZER: Final = 5
TENSOR_DIMS: Final = 1
TENSOR_TYPE: Final = 2
TENSOR_FLOATS: Final = 4
TENSOR_INT32S: Final = 5
TENSOR_INT64S: Final = 7
TENSOR_NAME: Final = 8
TENSOR_RAW: Final = 9
TENSOR_EXTERNAL: Final = 13
NODE_INPUT: Final = 1
NODE_OUTPUT: Final = 2
NODE_OPERATOR: Final = 4
NODE_ATTRIBUTE: Final = 5
NODE_DOMAIN: Final = 7
FUNCTION_NAME: Final = 1
FUNCTION_INPUT: Final = 4
FUNCTION_OUTPUT: Final = 5
FUNCTION_NODE: Final = 7
ATTRIBUTE_NAME: Final = 1
ATTRIBUTE_INT: Final = 3
ATTRIBUTE_STRING: Final = 4
ATTRIBUTE_TENSOR: Final = 5
ATTRIBUTE_INTS: Final = 8

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Field:
    """number: of the field. value: of a varint or fixed field. start, stop: where its bytes lie, if it has a length."""

    number: int
    value: int
    start: int
    stop: int


def fields(content: memoryview, start: int, stop: int) -> Iterator[Field]:
    """The fields of the message in content[start:stop], in order. Raises PackedFileError if it is none."""
    at = start
    while at < stop:
        key, at = varint(content, at, stop)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = varint(content, at, stop)
            yield Field(number, value, at, at)
            continue
        if kind == _BYTES:
            length, at = varint(content, at, stop)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise PackedFileError(f"wire type {kind} at byte {at}: this is no ONNX file")
        if length > stop - at:
            raise PackedFileError(
                f"a field of {length} bytes at byte {at} ends behind its message: this is no ONNX file"
            )
        value = int.from_bytes(content[at : at + length], "little") if kind != _BYTES else 0
        yield Field(number, value, at, at + length)
        at += length


def varint(content: memoryview, at: int, stop: int) -> tuple[int, int]:
    """(unsigned number, position behind it)."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            break
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise PackedFileError(f"a number that does not end at byte {at}: this is no ONNX file")


def numbers(content: memoryview, field: Field) -> Iterator[int]:
    """Of a repeated int64 field, packed or not."""
    if field.start == field.stop:
        yield signed(field.value)
    at = field.start
    while at < field.stop:
        value, at = varint(content, at, field.stop)
        yield signed(value)


def signed(value: int) -> int:
    """A varint as int64."""
    return value - 2**64 if value >= 2**63 else value


def text(content: memoryview, field: Field) -> str:
    return bytes(content[field.start : field.stop]).decode(errors="replace")


@dataclass(frozen=True)
class Tensor:
    """A TensorProto. start, stop: of its raw_data, equal if it has none. message: where the whole message lies."""

    name: str
    dims: tuple[int, ...]
    type: int
    start: int
    stop: int
    message: Field


def tensor(content: memoryview, message: Field) -> Tensor:
    name, dims, kind, start, stop = "", [], 0, 0, 0
    for field in fields(content, message.start, message.stop):
        if field.number == TENSOR_DIMS:
            dims += list(numbers(content, field))
        elif field.number == TENSOR_TYPE:
            kind = field.value
        elif field.number == TENSOR_NAME:
            name = text(content, field)
        elif field.number == TENSOR_RAW:
            start, stop = field.start, field.stop
        elif field.number == TENSOR_EXTERNAL:
            raise PackedFileError("the model keeps its weights in a second file; save it as one file")
    return Tensor(name, tuple(dims), kind, start, stop, message)


@dataclass(frozen=True)
class Node:
    """A NodeProto. attributes: their messages by name."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Field]


def node(content: memoryview, message: Field) -> Node:
    inputs, outputs, operator, domain, attributes = [], [], "", "", {}
    for field in fields(content, message.start, message.stop):
        if field.number == NODE_INPUT:
            inputs.append(text(content, field))
        elif field.number == NODE_OUTPUT:
            outputs.append(text(content, field))
        elif field.number == NODE_OPERATOR:
            operator = text(content, field)
        elif field.number == NODE_DOMAIN:
            domain = text(content, field)
        elif field.number == NODE_ATTRIBUTE:
            for inner in fields(content, field.start, field.stop):
                if inner.number == ATTRIBUTE_NAME:
                    attributes[text(content, inner)] = field
    return Node(operator, domain, tuple(inputs), tuple(outputs), attributes)


@dataclass(frozen=True)
class Function:
    """A FunctionProto."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Model:
    """What a ModelProto holds: nodes of the graph, its initialisers, and functions by name (domain `bantam`)."""

    nodes: tuple[Node, ...]
    initializers: tuple[Tensor, ...]
    functions: dict[str, Function]


def model(content: memoryview) -> Model:
    """Raises PackedFileError if `content` is no ONNX file."""
    nodes: list[Node] = []
    initializers: list[Tensor] = []
    functions: dict[str, Function] = {}
    found = False
    for field in fields(content, 0, len(content)):
        if field.number == MODEL_GRAPH:
            found = True
            for inner in fields(content, field.start, field.stop):
                if inner.number == GRAPH_NODE:
                    nodes.append(node(content, inner))
                elif inner.number == GRAPH_INITIALIZER:
                    initializers.append(tensor(content, inner))
        elif field.number == MODEL_FUNCTION:
            name, function = _function(content, field)
            functions[name] = function
    if not found:
        raise PackedFileError("there is no graph in it: this is no ONNX file")
    return Model(tuple(nodes), tuple(initializers), functions)


def _function(content: memoryview, message: Field) -> tuple[str, Function]:
    name, inputs, outputs, nodes = "", [], [], []
    for field in fields(content, message.start, message.stop):
        if field.number == FUNCTION_NAME:
            name = text(content, field)
        elif field.number == FUNCTION_INPUT:
            inputs.append(text(content, field))
        elif field.number == FUNCTION_OUTPUT:
            outputs.append(text(content, field))
        elif field.number == FUNCTION_NODE:
            nodes.append(node(content, field))
    return name, Function(tuple(inputs), tuple(outputs), tuple(nodes))

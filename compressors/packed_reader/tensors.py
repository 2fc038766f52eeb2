"""The weights of an ONNX file that stores them as codes, decoded without a runtime.

A file says itself how its codes are decoded: by standard operators and by functions that it carries (domain `bantam`).
Whatever depends on no input is evaluated here, operator by operator (`operators`); what is left are the tensors that
the runtime would hold after loading, under the names that they have in the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .element_types import Array, to_numpy
from .errors import PackedFileError
from .operators import OPERATORS
from .wire import (
    ATTRIBUTE_INT,
    ATTRIBUTE_INTS,
    ATTRIBUTE_STRING,
    ATTRIBUTE_TENSOR,
    TENSOR_FLOATS,
    TENSOR_INT32S,
    TENSOR_INT64S,
    Field,
    Function,
    Model,
    Node,
    Tensor,
    fields,
    model,
    numbers,
    signed,
    tensor,
)

_MAXIMUM_BYTES = 2**33


def decoded_tensors(content: bytes, *, maximum_bytes: int = _MAXIMUM_BYTES) -> dict[str, Array]:
    """Every constant that the graph's run-time nodes read, by name. bfloat16 and float8 come as float32, int4 as int8.

    maximum_bytes: of all arrays that are alive at a time. Raises PackedFileError for a damaged file, and for one whose
    decoding uses an operator that this reader does not know.
    """
    view = memoryview(content)
    found = model(view)
    evaluation = _Evaluation(view, found.functions, maximum_bytes)
    try:
        return evaluation.run(found)
    except (KeyError, ValueError, TypeError, IndexError, OverflowError, ZeroDivisionError) as error:
        if isinstance(error, PackedFileError):
            raise
        raise PackedFileError(f"its weights cannot be decoded ({error!r}); the file is damaged") from error


class _Evaluation:
    def __init__(self, content: memoryview, functions: Mapping[str, Function], maximum_bytes: int) -> None:
        self._content = content
        self._functions = functions
        self._left = maximum_bytes

    def run(self, found: Model) -> dict[str, Array]:
        values: dict[str, Array] = {}
        for stored in found.initializers:
            values[stored.name] = self._keep(_stored(self._content, stored))
        read: set[str] = set()
        for node in found.nodes:
            inputs = [name for name in node.inputs if name]
            constant = all(name in values for name in inputs) and (inputs or node.operator == "Constant")
            if constant and (node.domain == "bantam" or (not node.domain and node.operator in OPERATORS)):
                values[node.outputs[0]] = self._evaluate(node, [values[name] for name in node.inputs if name])
            else:
                read.update(name for name in inputs if name in values)
        return {name: values[name] for name in values if name in read}

    def _evaluate(self, node: Node, inputs: Sequence[Array]) -> Array:
        if not node.domain:
            return self._keep(self._operator(node, inputs))
        function = self._functions[node.operator]
        local: dict[str, Array] = dict(zip(function.inputs, inputs, strict=True))
        before = self._left
        for inner in function.nodes:
            if inner.domain or inner.operator not in OPERATORS:
                raise PackedFileError(
                    f"function {node.operator} decodes with {inner.operator}, which this reader does not know; "
                    "use a newer one, or expand to ONNX"
                )
            local[inner.outputs[0]] = self._keep(self._operator(inner, [local[name] for name in inner.inputs if name]))
        self._left = before
        return self._keep(local[function.outputs[0]])

    def _operator(self, node: Node, inputs: Sequence[Array]) -> Array:
        attributes = {name: self._attribute(message) for name, message in node.attributes.items()}
        return OPERATORS[node.operator](inputs, attributes, self._left)

    def _attribute(self, message: Field) -> Any:
        listed: list[int] = []
        for field in fields(self._content, message.start, message.stop):
            if field.number == ATTRIBUTE_INT:
                return signed(field.value)
            if field.number == ATTRIBUTE_TENSOR:
                return _stored(self._content, tensor(self._content, field))
            if field.number == ATTRIBUTE_INTS:
                listed += numbers(self._content, field)
            elif field.number == ATTRIBUTE_STRING:
                return bytes(self._content[field.start : field.stop]).decode()
        return listed

    def _keep(self, array: Array) -> Array:
        self._left -= array.nbytes
        if self._left < 0:
            raise PackedFileError("its decoded weights exceed the memory limit; raise maximum_bytes if that is meant")
        return array


def _stored(content: memoryview, stored: Tensor) -> Array:
    raw: bytes | memoryview = content[stored.start : stored.stop]
    if not len(raw):
        raw = _unrolled(content, stored.message)
    return to_numpy(raw, stored.type, stored.dims, stored.name)


def _unrolled(content: memoryview, message: Field) -> bytes:
    """Content of a tensor that keeps its numbers in typed fields: small constants of functions."""
    for field in fields(content, message.start, message.stop):
        if field.number == TENSOR_FLOATS:
            return bytes(content[field.start : field.stop])
        if field.number == TENSOR_INT64S:
            return _joined(content, message, TENSOR_INT64S, np.int64)
        if field.number == TENSOR_INT32S:
            return _joined(content, message, TENSOR_INT32S, np.int32)
    return b""


def _joined(content: memoryview, message: Field, number: int, kind: type) -> bytes:
    found: Iterable[int] = (
        value
        for field in fields(content, message.start, message.stop)
        if field.number == number
        for value in numbers(content, field)
    )
    return np.array(list(found), dtype=kind).tobytes()

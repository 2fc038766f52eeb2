"""The ONNX operators that decode weights, in numpy. Semantics: ONNX operator set 21."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from .element_types import NUMPY, Array
from .errors import PackedFileError

# (inputs, attributes, bytes that the result may have) to the first output.
Operator = Callable[[Sequence[Array], Mapping[str, Any], int], Array]


def _check(shape: Sequence[int], itemsize: int, limit: int) -> None:
    if min(shape, default=0) < 0 or prod(int(size) for size in shape) * itemsize > limit:
        raise PackedFileError(f"a decoded tensor of shape {tuple(shape)} exceeds the memory limit")


def _binary(function: Callable[[Any, Any], Any]) -> Operator:
    def operator(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
        one, other = inputs
        _check(np.broadcast_shapes(one.shape, other.shape), one.itemsize, limit)
        with np.errstate(all="ignore"):
            return np.asarray(function(one, other)).astype(one.dtype, copy=False)

    return operator


def _cast(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    target = np.dtype(NUMPY[attributes["to"]])
    _check(inputs[0].shape, target.itemsize, limit)
    return inputs[0].astype(target)


def _constant(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    value: Array = attributes["value"]
    return value


def _matmul(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    one, other = inputs
    if one.ndim != 2 or other.ndim != 2:
        raise PackedFileError("a product of other than two matrices decodes no weights")
    _check((one.shape[0], other.shape[1]), one.itemsize, limit)
    product: Array = one @ other
    return product


def _shift(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    return _binary(np.right_shift if attributes["direction"] == "RIGHT" else np.left_shift)(inputs, attributes, limit)


def _reshape(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    shape = [inputs[0].shape[i] if size == 0 else int(size) for i, size in enumerate(inputs[1])]
    return inputs[0].reshape(shape)


def _reduce_prod(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    axes = tuple(int(axis) for axis in inputs[1]) if len(inputs) > 1 else None
    return np.asarray(np.prod(inputs[0], axis=axes, keepdims=bool(attributes.get("keepdims", 1))))


def _slice(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    data, starts, ends = inputs[:3]
    axes = inputs[3] if len(inputs) > 3 else np.arange(len(starts))
    steps = inputs[4] if len(inputs) > 4 else np.ones(len(starts), dtype=np.int64)
    where = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        where[int(axis)] = slice(int(start), int(end), int(step))
    return data[tuple(where)]


def _gather(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    data, indices = inputs
    axis = attributes.get("axis", 0)
    _check((indices.size, data.size // max(data.shape[axis], 1)), data.itemsize, limit)
    return np.take(data, indices, axis=axis)


def _cumsum(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    return np.cumsum(inputs[0], axis=int(inputs[1].reshape(-1)[0]), dtype=inputs[0].dtype)


def _expand(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    shape = np.broadcast_shapes(inputs[0].shape, tuple(int(size) for size in inputs[1]))
    _check(shape, inputs[0].itemsize, limit)
    return np.broadcast_to(inputs[0], shape).copy()


def _scatter(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    data, indices, updates = inputs
    result = data.copy()
    np.put_along_axis(result, indices, updates, axis=attributes.get("axis", 0))
    return result


def _concat(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    _check((sum(part.size for part in inputs),), inputs[0].itemsize, limit)
    return np.concatenate(inputs, axis=attributes["axis"])


def _transpose(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    return np.ascontiguousarray(np.transpose(inputs[0], attributes.get("perm")))


def _where(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    _check(np.broadcast_shapes(*(part.shape for part in inputs)), inputs[1].itemsize, limit)
    return np.where(*inputs)


def _identity(inputs: Sequence[Array], attributes: Mapping[str, Any], limit: int) -> Array:
    return inputs[0]


OPERATORS: Mapping[str, Operator] = {
    "Add": _binary(np.add),
    "BitShift": _shift,
    "BitwiseAnd": _binary(np.bitwise_and),
    "BitwiseOr": _binary(np.bitwise_or),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "CumSum": _cumsum,
    "Div": _binary(np.divide),
    "Expand": _expand,
    "Gather": _gather,
    "Identity": _identity,
    "MatMul": _matmul,
    "Mul": _binary(np.multiply),
    "Pow": _binary(np.power),
    "ReduceProd": _reduce_prod,
    "Reshape": _reshape,
    "ScatterElements": _scatter,
    "Slice": _slice,
    "Sub": _binary(np.subtract),
    "Transpose": _transpose,
    "Where": _where,
}

"""Grids of integers for a weight: scales and zero points per channel or per group, chosen by range or by error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np

from compressors.encodings.integers import IntegerCodes
from compressors.encodings.scales import round_scale, shorten_scale
from compressors.onnx_emission import Array

Scheme = Literal["symmetric", "affine"]
WeightRange = Literal["max", "mse"]

_SMALLEST_SCALE = 1e-30
# Shares of the full range that the search tries, 6 % apart; with outliers of 10 standard deviations, 2 bits want
# the lowest.
_SHARES = 0.94 ** np.arange(30)
_REFINEMENTS = 2


@dataclass(frozen=True, kw_only=True)
class GridSpec:
    """bits: 2..8. group_size: weights along a row (all axes but 0) that share a scale; 0: one scale per output channel.
    A row that no group size divides is cut into ceil(row / group_size) groups of equal length. per_tensor: one scale
    for the whole weight.
    scheme: symmetric has its zero at the middle code, affine chooses it. range: max spans all weights; mse minimises
    the squared error of rounding."""

    bits: int
    group_size: int = 0
    scheme: Scheme = "symmetric"
    range: WeightRange = "mse"
    per_tensor: bool = False


@dataclass(frozen=True, eq=False)
class Grid:
    """value = (code - zero_point) * scale, code in 0 .. 2^bits - 1; scale, zero_point and blocks as in IntegerCodes."""

    shape: tuple[int, ...]
    bits: int
    scale: Array
    zero_point: Array
    blocks: tuple[int, ...] | None

    def nearest(self, values: Array) -> Array:
        """uint8 codes of the levels nearest to `values`, half to even."""
        blocked = _as_blocks(values, self.blocks)
        return _as_rows(_nearest(blocked, self.bits, self.scale, self.zero_point), self.shape)

    def with_codes(self, codes: Array) -> IntegerCodes:
        return IntegerCodes(codes, self.bits, self.scale, self.zero_point, self.blocks)

    def encode(self, values: Array) -> IntegerCodes:
        return self.with_codes(self.nearest(values))

    def spread(self) -> tuple[Array, Array]:
        """(scale, zero point) of every weight, float32 in the weight's shape."""
        full = self.blocks or self.shape
        parts = (np.broadcast_to(part.astype(np.float32), full) for part in (self.scale, self.zero_point))
        scale, zero_point = (np.ascontiguousarray(_as_rows(part, self.shape)) for part in parts)
        return scale, zero_point


def fit_grid(weight: Array, spec: GridSpec, output_axis: int = 0, importance: Array | None = None) -> Grid:
    """The grid for `weight` (float32, any rank >= 1). importance: non-negative, broadcastable to `weight`: what a
    squared error at a place costs (mean square of the input that it meets); None: the same everywhere.

    symmetric max: scale 2 max|w| / (2^b - 1), so that no weight is further than half a step from a level.
    mse: the best of 30 shares of that scale (for few bits with either sign, as the middle code has one level more below
    than above, or with the neighbouring zero points), then refined twice by least squares given the codes.
    Zero is always a level. Scales are bfloat16 numbers.
    """
    shape = weight.shape
    blocks = _blocks(shape, spec.group_size)
    view = _as_blocks(weight, blocks)
    if spec.per_tensor:
        axes: tuple[int, ...] = tuple(range(weight.ndim))
    elif blocks is not None:
        axes = (2,)
    else:
        axes = tuple(i for i in range(weight.ndim) if i != output_axis) if weight.ndim > 1 else (0,)
    low = np.minimum(view.min(axis=axes, keepdims=True), 0).astype(np.float64)
    high = np.maximum(view.max(axis=axes, keepdims=True), 0).astype(np.float64)
    scale, zero_point = _full_range(low, high, spec)
    if spec.range == "mse":
        cost = None if importance is None else _as_blocks(np.broadcast_to(importance, shape), blocks)
        scale, zero_point = _least_error(view, cost, axes, spec, scale, zero_point)
    if spec.scheme == "symmetric":
        zero_point = np.array(2 ** (spec.bits - 1), dtype=np.uint8)
    return Grid(shape, spec.bits, scale, zero_point, blocks)


def _full_range(low: Array, high: Array, spec: GridSpec) -> tuple[Array, Array]:
    levels = 2**spec.bits - 1
    reach = 2 * np.maximum(-low, high) if spec.scheme == "symmetric" else high - low
    scale = shorten_scale(np.maximum(reach / levels, _SMALLEST_SCALE).astype(np.float32))
    if spec.scheme == "symmetric":
        return scale, np.full(scale.shape, 2 ** (spec.bits - 1), dtype=np.uint8)
    return scale, np.clip(np.rint(-low / scale), 0, levels).astype(np.uint8)


def _least_error(
    view: Array, cost: Array | None, axes: tuple[int, ...], spec: GridSpec, scale: Array, zero_point: Array
) -> tuple[Array, Array]:
    """Per group the candidate with the least (weighted) squared error; the full range is one of them."""

    def weighted(numbers: Array) -> Array:
        total: Array = (numbers if cost is None else numbers * cost).sum(axis=axes, keepdims=True, dtype=np.float64)
        return total

    best_scale, best_zero = scale.copy(), zero_point.copy()
    best_error = np.full(scale.shape, np.inf)

    def consider(candidate: Array, zero: Array) -> None:
        distance = _nearest(view, spec.bits, candidate, zero).astype(np.float32)
        distance -= zero
        distance *= candidate
        distance -= view
        error = weighted(np.square(distance, out=distance))
        better = error < best_error
        best_scale[better], best_zero[better], best_error[better] = candidate[better], zero[better], error[better]

    for share in _SHARES:
        for sign, zero in _variants(spec, zero_point):
            consider(round_scale(scale * np.float32(sign * share)), zero)
    for _ in range(_REFINEMENTS):
        steps = _nearest(view, spec.bits, best_scale, best_zero).astype(np.float32) - best_zero
        norm = weighted(steps * steps)
        fitted = np.where(norm > 0, weighted(view * steps) / np.maximum(norm, _SMALLEST_SCALE), best_scale)
        consider(round_scale(np.where(fitted == 0, best_scale, fitted).astype(np.float32)), best_zero)
    return best_scale, best_zero


def _variants(spec: GridSpec, zero_point: Array) -> Iterator[tuple[int, Array]]:
    """Signs of the scale and zero points worth trying; with many levels they make no difference."""
    yield 1, zero_point
    if spec.bits > 4:
        return
    if spec.scheme == "symmetric":
        yield -1, zero_point
    else:
        yield 1, np.maximum(zero_point, 1) - np.uint8(1)
        yield 1, np.minimum(zero_point, 2**spec.bits - 2) + np.uint8(1)


def _nearest(values: Array, bits: int, scale: Array, zero_point: Array) -> Array:
    places = values / scale
    np.rint(places, out=places)
    places += zero_point
    codes: Array = np.clip(places, 0, 2**bits - 1, out=places).astype(np.uint8)
    return codes


def _blocks(shape: tuple[int, ...], group_size: int) -> tuple[int, ...] | None:
    if not group_size:
        return None
    row = prod(shape[1:])
    groups = -(-row // group_size)
    return (shape[0], groups, -(-row // groups))


def _as_blocks(values: Array, blocks: tuple[int, ...] | None) -> Array:
    """float32; rows filled up with zeros if the blocks hold more."""
    real = values.astype(np.float32, copy=False)
    if blocks is None:
        return real
    rows = real.reshape(blocks[0], -1)
    missing = blocks[1] * blocks[2] - rows.shape[1]
    return (np.pad(rows, [(0, 0), (0, missing)]) if missing else rows).reshape(blocks)


def _as_rows(blocked: Array, shape: tuple[int, ...]) -> Array:
    """Undoes `_as_blocks`."""
    if blocked.shape == shape:
        return blocked
    return blocked.reshape(shape[0], -1)[:, : prod(shape[1:])].reshape(shape)

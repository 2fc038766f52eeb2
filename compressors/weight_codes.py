"""Weights rounded to the nearest integers of a grid per output channel or per tensor."""

from __future__ import annotations

import numpy as np

from compressors.encodings.integers import IntegerCodes
from compressors.onnx_emission import Array
from compressors.recipes.quantization import Granularity, Scheme, WeightObserver

# A channel of zeros still needs a scale; one this small leaves all of int32 to its bias.
SMALLEST_SCALE = 1e-12
# Fractions of the largest weight that the mse observer tries for the end of the grid.
_SHRINKING = np.linspace(0.3, 1.0, 71)


def nearest_codes(
    weights: Array,
    bits: int,
    *,
    axis: int = 0,
    granularity: Granularity = "channel",
    scheme: Scheme = "symmetric",
    observer: WeightObserver = "min_max",
) -> IntegerCodes:
    """Codes of `weights` (float, any shape) with one scale per index of `axis`, or one for all.

    symmetric: scale * (-L..L), L = 2^(bits - 1) - 1, so that 0 is in the middle (Jacob et al. 2018, arXiv:1712.05877,
    section 2.1). affine: all 2^bits levels over min..max, widened to hold 0. observer mse: the largest code stands for
    the share of the largest weight, 0.3 to 1, that leaves the least squared error; symmetric grids only.
    """
    exact = weights.astype(np.float64)
    others = (
        tuple(range(weights.ndim)) if granularity == "tensor" else tuple(i for i in range(weights.ndim) if i != axis)
    )
    if scheme == "affine":
        return _affine_codes(exact, bits, others)
    limit = 2 ** (bits - 1) - 1
    largest = np.abs(exact).max(axis=others, keepdims=True)
    scale = _least_squares(exact, largest / limit, limit, others) if observer == "mse" else largest / limit
    return codes_on_grid(weights, bits, np.maximum(scale, SMALLEST_SCALE).astype(np.float32))


def codes_on_grid(weights: Array, bits: int, scale: Array) -> IntegerCodes:
    """Codes of `weights` on a symmetric grid that is given. scale: float32, broadcasts to `weights`."""
    limit, middle = 2 ** (bits - 1) - 1, 2 ** (bits - 1)
    codes = np.clip(np.round(weights.astype(np.float64) / scale), -limit, limit) + middle
    return IntegerCodes(codes.astype(np.uint8), bits, scale, np.array(middle, dtype=np.uint8))


def _affine_codes(weights: Array, bits: int, others: tuple[int, ...]) -> IntegerCodes:
    levels = 2**bits - 1
    low = np.minimum(weights.min(axis=others, keepdims=True), 0)
    high = np.maximum(weights.max(axis=others, keepdims=True), 0)
    scale = np.maximum((high - low) / levels, SMALLEST_SCALE).astype(np.float32)
    zero_point = np.clip(np.round(-low / scale), 0, levels)
    codes = np.clip(np.round(weights / scale) + zero_point, 0, levels)
    return IntegerCodes(codes.astype(np.uint8), bits, scale, zero_point.astype(np.uint8))


def _least_squares(weights: Array, widest: Array, limit: int, others: tuple[int, ...]) -> Array:
    """Scales, shaped like `widest`, with the least squared error among shrunk ones."""
    best = np.maximum(widest, SMALLEST_SCALE)
    best_error = np.full(best.shape, np.inf)
    for factor in _SHRINKING:
        scale = np.maximum(widest * factor, SMALLEST_SCALE)
        stored = np.clip(np.round(weights / scale), -limit, limit) * scale
        error = ((weights - stored) ** 2).sum(axis=others, keepdims=True)
        best = np.where(error <= best_error, scale, best)
        best_error = np.minimum(error, best_error)
    return best

"""Codebooks of weights: shared values by k-means, zeros kept."""

from __future__ import annotations

import numpy as np

from compressors.clustering import Initialization, Line, assign, kmeans
from compressors.encodings.codebook import Codebook, of_indices
from compressors.onnx_emission import Array


def fit_codebook(
    values: Array,
    bits: int,
    *,
    initialization: Initialization = "optimal",
    importance: Array | None = None,
    keep_zeros: bool | None = None,
    seed: int = 0,
) -> Codebook:
    """At most 2^bits values that replace `values` with a small squared error.

    importance: weight of each number in that error, of the same shape. keep_zeros: one of the shared values is 0 and
    exact zeros keep it; None: if at least a 2^bits-th part is 0. Shared values are rounded to float16 where its range
    allows it: the table takes half the bytes, and the rounding is far below the distance of neighbours.
    """
    zeros = values == 0
    if keep_zeros is None:
        keep_zeros = int(zeros.sum()) * 2**bits >= values.size
    if not keep_zeros:
        centres = np.unique(shortened(kmeans(Line(values, importance), 2**bits, initialization, seed)))
        return of_indices(assign(values, centres), centres)
    live = values[~zeros]
    if not live.size:
        return of_indices(np.zeros(values.shape, dtype=np.int64), np.zeros(1))
    weights = None if importance is None else importance[~zeros]
    centres = np.unique(shortened(kmeans(Line(live, weights), 2**bits - 1, initialization, seed)))
    indices = np.full(values.shape, len(centres), dtype=np.int64)
    indices[~zeros] = assign(live, centres)
    return of_indices(indices, np.append(centres, 0.0))


def shortened(centres: Array) -> Array:
    """The nearest float16 numbers as float32; float32 as it is if one is beyond float16's range."""
    if np.abs(centres).max(initial=0.0) > float(np.finfo(np.float16).max):
        return centres.astype(np.float32)
    rounded: Array = centres.astype(np.float16).astype(np.float32)
    return rounded

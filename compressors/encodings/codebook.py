"""Weights that share a few values: an index per weight and a table of values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from onnx import TensorProto

from compressors.encodings.sparse import emit_stored, stored_bytes
from compressors.onnx_emission import Array, Emission


@dataclass(frozen=True, eq=False)
class Codebook:
    """values = centroids[codes] (Han et al. 2016, arXiv:1510.00149, section 3).

    codes: uint8 in the parameter's layout, each < len(centroids). centroids: float32 (k,), k <= 256, stored in 16 bits
    each where float16 holds them all. Indices take ceil(log2 k) bits each in the file; if one prevails (zeros of a
    pruned weight), it is left out.
    """

    codes: Array
    centroids: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def bits(self) -> int:
        """Of one index."""
        return max(1, (len(self.centroids) - 1).bit_length())

    @property
    def nbytes(self) -> int:
        return stored_bytes(self.codes, self.bits) + self._table().nbytes

    def decode(self) -> Array:
        values: Array = self.centroids[self.codes]
        return values

    def take(self, rows: Array) -> Codebook:
        return replace(self, codes=self.codes[rows])

    def emit(self, emission: Emission) -> str:
        indices = emission.add("Cast", emit_stored(emission, self.codes, self.bits), to=TensorProto.INT32)
        table = self._table()
        values = emission.add("Gather", emission.constant(table), indices)
        return values if table.dtype == np.float32 else emission.add("Cast", values, to=TensorProto.FLOAT)

    def _table(self) -> Array:
        """Centroids in the shortest type that holds them."""
        with np.errstate(over="ignore"):
            short = self.centroids.astype(np.float16)
        return short if np.array_equal(short.astype(np.float32), self.centroids) else self.centroids


def of_indices(indices: Array, centroids: Array) -> Codebook:
    """A codebook of `centroids[indices]` without unused or equal centroids, in rising order."""
    values, inverse = np.unique(np.asarray(centroids, dtype=np.float32), return_inverse=True)
    used, codes = np.unique(inverse[indices], return_inverse=True)
    return Codebook(codes.reshape(indices.shape).astype(np.uint8), values[used])

"""What every encoding of a weight can do.

An encoding holds fewer bits than float32 and is decoded by standard operators when the file is loaded: a runtime folds
those nodes into constants, so that the file shrinks and the speed stays. Decoding is exact: the model's parameter holds
the very values that come out.
"""

from __future__ import annotations

from typing import Protocol

from compressors.onnx_emission import Array, Emission


class Encoding(Protocol):
    """One stored tensor. Implementations are frozen and hold their codes as numpy arrays."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the decoded tensor."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of everything stored (codes, scales, tables), without names and nodes of the file."""
        ...

    def decode(self) -> Array:
        """The float32 tensor."""
        ...

    def take(self, rows: Array) -> Encoding:
        """The encoding of `decode()[rows]`, rows: int64 indices along axis 0."""
        ...

    def emit(self, emission: Emission) -> str:
        """Adds initialisers and nodes that decode them; returns the name of the float32 result."""
        ...

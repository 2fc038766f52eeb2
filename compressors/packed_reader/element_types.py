"""ONNX element types as numpy arrays. What numpy has no type for is widened without loss."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import PackedFileError

Array = npt.NDArray[Any]

# TensorProto.DataType to numpy, little-endian as in raw_data.
NUMPY: dict[int, str] = {
    1: "<f4",
    2: "u1",
    3: "i1",
    4: "<u2",
    5: "<i2",
    6: "<i4",
    7: "<i8",
    9: "?",
    10: "<f2",
    11: "<f8",
    12: "<u4",
    13: "<u8",
}
_BFLOAT16, _E4M3, _E5M2, _UINT4, _INT4 = 16, 17, 19, 21, 22


def to_numpy(raw: bytes | memoryview, kind: int, dims: tuple[int, ...], name: str = "") -> Array:
    """The array of shape `dims` that `raw` holds. bfloat16 and float8 become float32, (u)int4 becomes (u)int8.

    Raises PackedFileError for an unknown type, and for a length that does not fit.
    """
    count = prod(dims)
    if min(dims, default=0) < 0:
        raise PackedFileError(f"tensor {name!r} has shape {dims}; the file is damaged")
    width = 4 if kind in (_UINT4, _INT4) else 8 * _bytes(kind, name)
    if len(raw) != -(-count * width // 8):
        raise PackedFileError(f"tensor {name!r} of shape {dims} has {len(raw)} bytes; the file is damaged")
    if kind in NUMPY:
        return np.frombuffer(raw, dtype=NUMPY[kind]).reshape(dims)
    if kind == _BFLOAT16:
        return (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32).reshape(dims)
    codes = np.frombuffer(raw, dtype=np.uint8)
    if kind in (_E4M3, _E5M2):
        decoded: Array = _float8_table(kind)[codes].reshape(dims)
        return decoded
    nibbles = np.stack([codes & 15, codes >> 4], axis=1).reshape(-1)[:count].reshape(dims)
    signed: Array = (nibbles.astype(np.int8) ^ 8) - np.int8(8)
    return nibbles if kind == _UINT4 else signed


def _bytes(kind: int, name: str) -> int:
    if kind in NUMPY:
        return np.dtype(NUMPY[kind]).itemsize
    if kind == _BFLOAT16:
        return 2
    if kind in (_E4M3, _E5M2):
        return 1
    raise PackedFileError(f"tensor {name!r} has element type {kind}, which this reader does not know")


def _float8_table(kind: int) -> Array:
    """All 256 values (Micikevicius et al. 2022, arXiv:2209.05433, table 1)."""
    fraction_bits, bias = (3, 7) if kind == _E4M3 else (2, 15)
    codes = np.arange(256)
    exponent = codes >> fraction_bits & (2 ** (7 - fraction_bits) - 1)
    fraction = (codes & (2**fraction_bits - 1)) / 2**fraction_bits
    size = np.where(exponent == 0, fraction * 2.0 ** (1 - bias), (1 + fraction) * 2.0 ** (exponent - bias))
    if kind == _E4M3:
        size[(codes & 127) == 127] = np.nan
    else:
        size[(codes & 127) == 124] = np.inf
        size[(codes & 127) > 124] = np.nan
    values: Array = np.where(codes & 128, -size, size).astype(np.float32)
    return values

"""Short floating-point formats: float16, bfloat16 and the two of 8 bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from compressors.onnx_emission import Array, Emission

FloatName = Literal["float16", "bfloat16", "float8_e4m3", "float8_e5m2"]
_FLOATS: dict[FloatName, tuple[type, int]] = {
    "float16": (np.float16, TensorProto.FLOAT16),
    "bfloat16": (ml_dtypes.bfloat16, TensorProto.BFLOAT16),
    "float8_e4m3": (ml_dtypes.float8_e4m3fn, TensorProto.FLOAT8E4M3FN),
    "float8_e5m2": (ml_dtypes.float8_e5m2, TensorProto.FLOAT8E5M2),
}


@dataclass(frozen=True, eq=False)
class FloatEncoding:
    """values = scale * codes in a short float format (float8: Micikevicius et al. 2022, arXiv:2209.05433).

    codes: in the format's numpy type. scale: float32, broadcastable to codes, or None for 1.
    """

    name: FloatName
    codes: Array
    scale: Array | None = None

    @classmethod
    def of(cls, values: Array, name: FloatName, scale: Array | None = None) -> FloatEncoding:
        """Rounds to nearest even; what is beyond the format's range is clipped to its largest number."""
        kind = _FLOATS[name][0]
        largest = float(ml_dtypes.finfo(kind).max)  # type: ignore[no-untyped-call]
        scaled = values if scale is None else values / scale
        return cls(name, np.clip(scaled, -largest, largest).astype(kind), scale)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def decode(self) -> Array:
        values: Array = self.codes.astype(np.float32)
        return values if self.scale is None else values * self.scale

    def take(self, rows: Array) -> FloatEncoding:
        per_row = self.scale is not None and self.scale.ndim == self.codes.ndim and self.scale.shape[0] > 1
        scale = self.scale[rows] if per_row and self.scale is not None else self.scale
        return replace(self, codes=self.codes[rows], scale=scale)

    def emit(self, emission: Emission) -> str:
        stored = helper.make_tensor("", _FLOATS[self.name][1], self.codes.shape, self.codes.tobytes(), raw=True)
        decoded = emission.add("Cast", emission.raw(stored), to=onnx.TensorProto.FLOAT)
        return decoded if self.scale is None else emission.add("Mul", decoded, emission.constant(self.scale))

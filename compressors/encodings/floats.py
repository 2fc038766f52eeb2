"""Short floating-point formats: float16, bfloat16 and the two of 8 bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from compressors.encodings.scales import emit_scale, scale_bytes
from compressors.onnx_emission import FUNCTIONS, OPSET, Array, Emission

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
        limit = largest(name)
        scaled = values if scale is None else values / scale
        return cls(name, np.clip(scaled, -limit, limit).astype(_FLOATS[name][0]), scale)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + (0 if self.scale is None else scale_bytes(self.scale))

    def decode(self) -> Array:
        values: Array = self.codes.astype(np.float32)
        return values if self.scale is None else values * self.scale

    def take(self, rows: Array) -> FloatEncoding:
        per_row = self.scale is not None and self.scale.ndim == self.codes.ndim and self.scale.shape[0] > 1
        scale = self.scale[rows] if per_row and self.scale is not None else self.scale
        return replace(self, codes=self.codes[rows], scale=scale)

    def emit(self, emission: Emission) -> str:
        stored = emission.raw(
            helper.make_tensor("", _FLOATS[self.name][1], self.codes.shape, self.codes.tobytes(), raw=True)
        )
        if self.scale is None:
            return emission.add("Cast", stored, to=TensorProto.FLOAT)
        return emission.call(_scaled(), stored, emit_scale(emission, self.scale))


def largest(name: FloatName) -> float:
    """The largest finite number of a format."""
    return float(ml_dtypes.finfo(_FLOATS[name][0]).max)  # type: ignore[no-untyped-call]


@cache
def _scaled() -> onnx.FunctionProto:
    """(codes, scale), of any float type, to codes * scale in float32."""
    nodes = [helper.make_node("Cast", [name], [name.upper()], to=TensorProto.FLOAT) for name in "cs"]
    nodes.append(helper.make_node("Mul", ["C", "S"], ["q"]))
    return helper.make_function(FUNCTIONS, "scaled", ["c", "s"], ["q"], nodes, [helper.make_opsetid("", OPSET)])

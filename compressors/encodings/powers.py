"""Weights whose magnitudes are powers of two: a sign and an exponent each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import onnx
from onnx import TensorProto, helper

from compressors.encodings.scales import emit_scale, scale_bytes
from compressors.encodings.sparse import emit_stored, stored_bytes
from compressors.onnx_emission import FUNCTIONS, OPSET, Array, Emission


@dataclass(frozen=True, eq=False)
class PowerCodes:
    """values = powers(bits)[codes] * scale.

    codes: uint8 in the parameter's layout. bits: 2..5, a sign and an exponent of bits - 1 bits whose lowest value means
    zero (Zhou et al. 2017, arXiv:1702.03044, eq. 1). scale: float32 powers of two, broadcast to codes.
    """

    codes: Array
    bits: int
    scale: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def nbytes(self) -> int:
        return stored_bytes(self.codes, self.bits) + scale_bytes(self.scale) + powers(self.bits).nbytes

    def decode(self) -> Array:
        values: Array = powers(self.bits)[self.codes] * self.scale
        return values

    def take(self, rows: Array) -> PowerCodes:
        per_row = self.scale.ndim == self.codes.ndim and self.scale.shape[0] > 1
        return replace(self, codes=self.codes[rows], scale=self.scale[rows] if per_row else self.scale)

    def emit(self, emission: Emission) -> str:
        codes = emit_stored(emission, self.codes, self.bits)
        table = emission.constant(powers(self.bits))
        return emission.call(_lookup(), table, codes, emit_scale(emission, self.scale))


def powers(bits: int) -> Array:
    """The 2^bits levels by code, float32: 0, 2^-(m - 2), ..., 1/2, 1 with m = 2^(bits - 1), then the same negated."""
    half = 2 ** (bits - 1)
    positive = np.concatenate([[0.0], np.exp2(np.arange(2 - half, 1))])
    return np.concatenate([positive, -positive + 0.0]).astype(np.float32)


def nearest_powers(values: Array, bits: int, scale: Array) -> PowerCodes:
    """Codes of the nearest levels; between two powers the border is their mean, 1.5 times the lower."""
    half = 2 ** (bits - 1)
    magnitudes = powers(bits)[:half]
    borders = (magnitudes[1:] + magnitudes[:-1]) / 2
    index = np.searchsorted(borders, np.abs(values / scale), side="left")
    codes = np.where((values < 0) & (index > 0), index + half, index)
    return PowerCodes(codes.astype(np.uint8), bits, scale)


@cache
def _lookup() -> onnx.FunctionProto:
    """(table float32, codes, scale) to table[codes] * scale."""
    nodes = [
        helper.make_node("Cast", ["c"], ["i"], to=TensorProto.INT32),
        helper.make_node("Gather", ["t", "i"], ["g"]),
        helper.make_node("Cast", ["s"], ["S"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["g", "S"], ["q"]),
    ]
    return helper.make_function(FUNCTIONS, "lookup", ["t", "c", "s"], ["q"], nodes, [helper.make_opsetid("", OPSET)])

"""Weights as integers of 2 to 8 bits with scales per tensor, per channel or per group."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import prod

import numpy as np
import onnx
from onnx import TensorProto, helper

from compressors.encodings.scales import emit_scale, scale_bytes
from compressors.encodings.sparse import emit_stored, stored_bytes
from compressors.onnx_emission import FUNCTIONS, OPSET, Array, Emission


@dataclass(frozen=True, eq=False)
class IntegerCodes:
    """values = (codes - zero_point) * scale, in float32 (Jacob et al. 2018, arXiv:1712.05877, eq. 1).

    codes: uint8 in the parameter's layout, each in 0 .. 2^bits - 1. scale: float32; zero_point: uint8, or float32 for a
    grid whose zero lies between two codes; both broadcast to codes, or to codes read as `blocks`.
    blocks: None, or a shape of the same size, or (rows, groups, length) with groups * length >= the size of a row
    (axis 0): then each row is filled up in the file so that groups are equally long (at most groups - 1 codes a row).
    Scales that bfloat16 holds exactly are stored in 16 bits.
    """

    codes: Array
    bits: int
    scale: Array
    zero_point: Array
    blocks: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def nbytes(self) -> int:
        return stored_bytes(self._blocked(), self.bits) + scale_bytes(self.scale) + self.zero_point.nbytes

    @property
    def is_symmetric(self) -> bool:
        """Whether the zero point is the middle code, 2^(bits - 1), everywhere."""
        return bool(np.all(self.zero_point == 2 ** (self.bits - 1)))

    def signed(self) -> Array:
        """int8 codes - 2^(bits - 1), in the parameter's layout: what integer kernels multiply with if symmetric."""
        codes: Array = (self.codes.astype(np.int16) - 2 ** (self.bits - 1)).astype(np.int8)
        return codes

    def decode(self) -> Array:
        values = (self._blocked().astype(np.float32) - self.zero_point.astype(np.float32)) * self.scale
        if values.size == self.codes.size:
            return values.reshape(self.shape)
        rows = self.shape[0]
        return values.reshape(rows, -1)[:, : self.codes.size // rows].reshape(self.shape)

    def take(self, rows: Array) -> IntegerCodes:
        ndim = len(self.blocks or self.shape)

        def of_rows(numbers: Array) -> Array:
            return numbers[rows] if numbers.ndim == ndim and numbers.shape[0] > 1 else numbers

        blocks = None if self.blocks is None else (len(rows), *self.blocks[1:])
        if self.blocks is not None and self.blocks[0] != self.shape[0]:
            raise ValueError(f"blocks {self.blocks} cut across the rows of {self.shape}: rows cannot be taken singly")
        return replace(
            self,
            codes=self.codes[rows],
            scale=of_rows(self.scale),
            zero_point=of_rows(self.zero_point),
            blocks=blocks,
        )

    def emit(self, emission: Emission) -> str:
        blocked = self._blocked()
        decoded = emission.call(
            _affine(),
            emit_stored(emission, blocked, self.bits),
            emission.constant(self.zero_point),
            emit_scale(emission, self.scale),
        )
        if blocked.shape == self.shape:
            return decoded
        if blocked.size != self.codes.size:
            rows, length = self.shape[0], self.codes.size // self.shape[0]
            flat = emission.add("Reshape", decoded, emission.ints([rows, -1]))
            decoded = emission.add("Slice", flat, emission.ints([0]), emission.ints([length]), emission.ints([1]))
        return emission.add("Reshape", decoded, emission.ints(self.shape))

    def _blocked(self) -> Array:
        """Codes as `blocks`."""
        if self.blocks is None:
            return self.codes
        missing = prod(self.blocks) - self.codes.size
        if not missing:
            return self.codes.reshape(self.blocks)
        rows = self.codes.reshape(self.shape[0], -1)
        return np.pad(rows, [(0, 0), (0, missing // len(rows))]).reshape(self.blocks)


@cache
def _affine() -> onnx.FunctionProto:
    """(codes, zero point, scale), of any type, to (codes - zero point) * scale in float32."""
    nodes = [helper.make_node("Cast", [name], [name.upper()], to=TensorProto.FLOAT) for name in "czs"]
    nodes += [helper.make_node("Sub", ["C", "Z"], ["d"]), helper.make_node("Mul", ["d", "S"], ["q"])]
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_function(FUNCTIONS, "affine", ["c", "z", "s"], ["q"], nodes, opset)

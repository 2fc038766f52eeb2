"""Tensors in which one value prevails (zeros of a pruned weight): only the others are stored, and where they are.

Two ways of saying where, the smaller is taken for each tensor:

bitmap  one bit per element; value 1 + (rank of the element among the set bits). Best up to about 80 % zeros.
gaps    numbers of zeros in front of each value, in 2 to 8 bits; a longer run is broken up by entries that hold the
        prevailing value themselves (Han et al. 2016, arXiv:1510.00149, figure 2). Best above.

Both are decoded by one function that the file carries (domain `bantam`, about 0.5 kB each) and that a runtime folds
when it loads the file: the file shrinks, while memory and time at run time are those of the dense tensor. No kernel of
ONNX Runtime skips zeros. Decoding a tensor of n elements needs at most 17 n bytes beside the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from compressors.encodings.bits import emit_codes, packed_bytes
from compressors.onnx_emission import FUNCTIONS, OPSET, Array, Emission

GAP_BITS = range(2, 9)
# Nodes, names and shapes that a sparse tensor adds to the file, and a share of the functions that decode it.
_OVERHEAD = 256


@dataclass(frozen=True, eq=False)
class SparseLayout:
    """values: 1-D, the prevailing value first, then the stored ones in C order. places: uint8, a bit per element
    (bits = 1), or the gap in front of each stored value (bits = 2..8). kind: which of the two."""

    shape: tuple[int, ...]
    values: Array
    places: Array
    kind: Literal["bitmap", "gaps"]
    bits: int

    def nbytes(self, value_bits: int) -> int:
        """Bytes of values of `value_bits` bits and their places."""
        return -(-self.values.size * value_bits // 8) + packed_bytes(self.places.size, self.bits)

    def decode(self) -> Array:
        """The dense array, of the type of `values`."""
        if self.kind == "bitmap":
            ranks = np.cumsum(self.places, dtype=np.int64) * self.places
            dense: Array = self.values[ranks].reshape(self.shape)
            return dense
        dense = np.full(prod(self.shape), self.values[0], dtype=self.values.dtype)
        dense[np.cumsum(self.places.astype(np.int64) + 1) - 1] = self.values[1:]
        return dense.reshape(self.shape)

    def emit(self, emission: Emission, values: str) -> str:
        """Nodes that spread the 1-D tensor `values`, of any numeric type, over the dense shape."""
        places = emit_codes(emission, self.places, self.bits)
        if self.bits == 4:
            places = emission.add("Cast", places, to=TensorProto.UINT8)
        function = _spread() if self.kind == "bitmap" else _place()
        return emission.call(function, values, places, emission.ints(self.shape))


def sparse_layout(array: Array, value_bits: int, background: int | float | None = None) -> SparseLayout | None:
    """The smallest sparse form of `array`, None if none is smaller than the dense form of `value_bits` bits an element.

    background: the value that is left out; None: the most frequent one (array: uint8). Negative zeros become zeros.
    """
    flat = array.reshape(-1)
    if not flat.size:
        return None
    if background is None:
        background = int(np.bincount(flat).argmax())
    positions = np.flatnonzero(flat != background)
    if not len(positions):
        positions = np.zeros(1, dtype=np.int64)
    dense = -(-flat.size * value_bits // 8)
    sizes = {1: packed_bytes(flat.size, 1) + len(positions) * value_bits // 8}
    if len(positions) * value_bits // 8 + _OVERHEAD < dense:
        runs = np.diff(positions, prepend=-1) - 1
        for bits in GAP_BITS:
            entries = int((runs // 2**bits).sum()) + len(runs)
            sizes[bits] = packed_bytes(entries, bits) + entries * value_bits // 8
    bits = min(sizes, key=lambda width: sizes[width])
    if sizes[bits] + _OVERHEAD >= dense:
        return None
    if bits == 1:
        return _bitmap(array, positions, background)
    return _gaps(array, positions, background, bits)


def stored_bytes(codes: Array, bits: int) -> int:
    """What `emit_stored` stores for codes of `bits` bits."""
    layout = sparse_layout(codes, bits)
    return packed_bytes(codes.size, bits) if layout is None else layout.nbytes(bits)


def emit_stored(emission: Emission, codes: Array, bits: int) -> str:
    """Stores uint8 codes of `bits` bits (1..8), dense or sparse, whichever is smaller. The result is uint8 of their
    shape (uint4 where codes of 4 bits are dense: Cast it)."""
    layout = sparse_layout(codes, bits)
    if layout is None:
        return emit_codes(emission, codes, bits)
    values = emit_codes(emission, layout.values, bits)
    return layout.emit(emission, emission.add("Cast", values, to=TensorProto.UINT8) if bits == 4 else values)


def _bitmap(array: Array, positions: Array, background: int | float) -> SparseLayout:
    flat = array.reshape(-1)
    places = np.zeros(flat.size, dtype=np.uint8)
    places[positions] = 1
    values = np.concatenate([np.array([background], dtype=array.dtype), flat[positions]])
    return SparseLayout(array.shape, values, places, "bitmap", 1)


def _gaps(array: Array, positions: Array, background: int | float, bits: int) -> SparseLayout:
    step = 2**bits
    runs = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum(runs // step + 1)  # a run of r becomes r // step fillers and the value itself
    places = np.full(ends[-1], step - 1, dtype=np.uint8)
    places[ends - 1] = runs % step
    values = np.full(ends[-1] + 1, background, dtype=array.dtype)
    values[ends] = array.reshape(-1)[positions]
    return SparseLayout(array.shape, values, places, "gaps", bits)


def _constant(name: str, number: int, *, kind: int = TensorProto.INT64, dims: tuple[int, ...] = (1,)) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=helper.make_tensor("", kind, dims, [number]))


@cache
def _spread() -> onnx.FunctionProto:
    """(values (k + 1,), bits uint8 (n,), shape) to the dense tensor: values[rank of the bit], or values[0]."""
    nodes = [
        helper.make_node("Cast", ["b"], ["a"], to=TensorProto.INT32),
        _constant("z", 0, kind=TensorProto.INT32, dims=()),
        helper.make_node("CumSum", ["a", "z"], ["c"]),
        helper.make_node("Mul", ["a", "c"], ["i"]),
        helper.make_node("Gather", ["v", "i"], ["g"]),
        helper.make_node("Reshape", ["g", "s"], ["q"]),
    ]
    return helper.make_function(FUNCTIONS, "spread", ["v", "b", "s"], ["q"], nodes, [helper.make_opsetid("", OPSET)])


@cache
def _place() -> onnx.FunctionProto:
    """(values (k + 1,), gaps uint8 (k,), shape) to the dense tensor: values[i + 1] after gaps[i] times values[0]."""
    nodes = [
        helper.make_node("Cast", ["g"], ["a"], to=TensorProto.INT64),
        _constant("o", 1),
        helper.make_node("Add", ["a", "o"], ["b"]),
        _constant("z", 0),
        helper.make_node("CumSum", ["b", "z"], ["c"]),
        helper.make_node("Sub", ["c", "o"], ["p"]),
        helper.make_node("Slice", ["v", "z", "o"], ["w"]),
        _constant("e", 2**62),
        helper.make_node("Slice", ["v", "o", "e"], ["x"]),
        helper.make_node("ReduceProd", ["s", "z"], ["n"]),
        helper.make_node("Expand", ["w", "n"], ["d"]),
        helper.make_node("ScatterElements", ["d", "p", "x"], ["y"]),
        helper.make_node("Reshape", ["y", "s"], ["q"]),
    ]
    return helper.make_function(FUNCTIONS, "place", ["v", "g", "s"], ["q"], nodes, [helper.make_opsetid("", OPSET)])

"""Integers of 1 to 8 bits, packed without gaps, and the ONNX functions that unpack them when a file is loaded.

Codes are laid out as one little-endian stream: code i takes the bits i * b .. i * b + b - 1, bit 0 being the lowest of
byte 0. The stream is cut into words of the fewest whole bytes that hold whole codes (8 codes of 3 bits in 3 bytes,
4 codes of 6 bits in 3 bytes). A model carries one function per bit width (domain `bantam`, 0.2 to 0.5 kB), a tensor
adds one node. Four bits use ONNX's own int4 and uint4, which need no function.

Decoding a tensor of n codes needs at most 9 n bytes beside the result; ONNX Runtime 1.32 frees them tensor by tensor.
"""

from __future__ import annotations

from functools import cache
from math import gcd, prod
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compressors.onnx_emission import FUNCTIONS, OPSET, Array, Emission

_NATIVE = {4: TensorProto.UINT4, 8: TensorProto.UINT8}


def word_of(bits: int) -> tuple[int, int]:
    """(codes, bytes) of the smallest word of whole bytes that holds whole codes. bits: 1..8."""
    codes = 8 // gcd(8, bits)
    return codes, codes * bits // 8


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` codes take, the last word filled up with zeros."""
    codes, size = word_of(bits)
    return -(-count // codes) * size


def pack(codes: Array, bits: int) -> Array:
    """Unsigned codes (any shape, each < 2^bits) as uint8 (words, bytes per word).

    Raises ValueError for a code that does not fit: a wrong bit width would corrupt its neighbours.
    """
    flat = np.asarray(codes).reshape(-1)
    if flat.size and (flat.min() < 0 or flat.max() >= 2**bits):
        raise ValueError(f"codes lie in {flat.min()}..{flat.max()}: {bits} bits hold 0..{2**bits - 1}")
    per_word, size = word_of(bits)
    padded = np.zeros(-(-flat.size // per_word) * per_word, dtype=np.uint8)
    padded[: flat.size] = flat
    stream = np.unpackbits(padded[:, None], axis=1, count=bits, bitorder="little")
    return np.packbits(stream.reshape(-1), bitorder="little").reshape(-1, size)


def unpack(packed: Array, bits: int, shape: tuple[int, ...]) -> Array:
    """uint8 codes of `shape` out of what `pack` made."""
    stream = np.unpackbits(packed.reshape(-1), bitorder="little")[: prod(shape) * bits]
    codes: Array = np.packbits(stream.reshape(-1, bits), axis=1, bitorder="little").reshape(shape)
    return codes


def emit_codes(emission: Emission, codes: Array, bits: int) -> str:
    """Stores unsigned codes in `bits` bits each (1..8); the result is uint8 of their shape (uint4 for 4 bits: Cast it).

    codes: any integer type, each in 0 .. 2^bits - 1.
    """
    packed = pack(codes, bits)
    if bits in _NATIVE:
        return emission.raw(helper.make_tensor("", _NATIVE[bits], codes.shape, packed.tobytes(), raw=True))
    return emission.call(_unpacking(bits), emission.constant(packed), emission.ints(codes.shape))


def pack_integers(emission: Emission, codes: Array, bits: int, to: Literal["int8", "float32"] = "int8") -> str:
    """Stores signed codes in `bits` bits each (2..8); the result is a tensor of type `to`, as whole numbers.

    codes: any integer type, each in -2^(bits - 1) .. 2^(bits - 1) - 1. Raises ValueError for others.
    """
    half = 2 ** (bits - 1)
    kind = TensorProto.INT8 if to == "int8" else TensorProto.FLOAT
    if codes.size and (codes.min() < -half or codes.max() >= half):
        raise ValueError(f"codes lie in {codes.min()}..{codes.max()}: {bits} signed bits hold {-half}..{half - 1}")
    if bits in _NATIVE:
        signed = TensorProto.INT4 if bits == 4 else TensorProto.INT8
        packed = pack(codes.astype(np.int8).view(np.uint8) & np.uint8(2**bits - 1), bits)
        name = emission.raw(helper.make_tensor("", signed, codes.shape, packed.tobytes(), raw=True))
        return name if signed == kind else emission.add("Cast", name, to=kind)
    unsigned = emit_codes(emission, codes.astype(np.int16) + half, bits)
    return emission.call(_centring(to, kind), unsigned, emission.constant(np.array(half, dtype=np.int32)))


def _constant(name: str, content: Array) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(content))


@cache
def _unpacking(bits: int) -> onnx.FunctionProto:
    """(packed uint8 (words, bytes), shape int64) to uint8 codes of that shape."""
    per_word, size = word_of(bits)
    kind: Any = np.uint8 if size == 1 else np.uint32 if size <= 4 else np.uint64
    nodes = []
    word = "p"
    if size > 1:
        nodes += [
            helper.make_node("Cast", ["p"], ["a"], to=helper.np_dtype_to_tensor_dtype(np.dtype(kind))),
            _constant("b", np.array([[256**i] for i in range(size)], dtype=kind)),
            helper.make_node("MatMul", ["a", "b"], ["w"]),
        ]
        word = "w"
    nodes += [
        _constant("c", np.arange(0, per_word * bits, bits, dtype=kind)),
        helper.make_node("BitShift", [word, "c"], ["d"], direction="RIGHT"),
        helper.make_node("Cast", ["d"], ["e"], to=TensorProto.UINT8),  # keeps the lowest 8 bits
        _constant("f", np.array(2**bits - 1, dtype=np.uint8)),
        helper.make_node("BitwiseAnd", ["e", "f"], ["g"]),
        # The last word may hold more codes than are left.
        _constant("h", np.array([-1], dtype=np.int64)),
        helper.make_node("Reshape", ["g", "h"], ["i"]),
        _constant("j", np.array([0], dtype=np.int64)),
        helper.make_node("ReduceProd", ["s", "j"], ["k"]),
        helper.make_node("Slice", ["i", "j", "k"], ["l"]),
        helper.make_node("Reshape", ["l", "s"], ["q"]),
    ]
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_function(FUNCTIONS, f"unpack{bits}", ["p", "s"], ["q"], nodes, opset)


@cache
def _centring(name: str, kind: int) -> onnx.FunctionProto:
    """(uint8 codes, int32 half) to codes - half as `kind`."""
    nodes = [
        helper.make_node("Cast", ["c"], ["a"], to=TensorProto.INT32),
        helper.make_node("Sub", ["a", "h"], ["b"]),
        helper.make_node("Cast", ["b"], ["q"], to=kind),
    ]
    return helper.make_function(FUNCTIONS, f"to_{name}", ["c", "h"], ["q"], nodes, [helper.make_opsetid("", OPSET)])

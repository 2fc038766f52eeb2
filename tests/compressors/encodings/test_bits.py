"""Packing of codes into bytes, and the same back by numpy and by the runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto

from compressors.encodings.bits import emit_codes, pack, pack_integers, packed_bytes, unpack
from compressors.onnx_emission import Array
from tests.compressors.encodings.decoding import decoded_by_runtime, emission

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=9)


@st.composite
def codes(draw: st.DrawFn) -> tuple[int, Array]:
    bits = draw(st.integers(1, 8))
    return bits, draw(arrays.arrays(np.uint8, SHAPES, elements=st.integers(0, 2**bits - 1)))


@given(codes())
def test_packing_round_trips(case: tuple[int, Array]) -> None:
    bits, given_codes = case
    packed = pack(given_codes, bits)
    assert packed.nbytes == packed_bytes(given_codes.size, bits)
    assert packed.nbytes < given_codes.size * bits / 8 + 8
    np.testing.assert_array_equal(unpack(packed, bits, given_codes.shape), given_codes)


def test_the_stream_is_little_endian() -> None:
    np.testing.assert_array_equal(pack(np.array([1, 2, 3]), 3), [[0b11010001, 0, 0]])
    np.testing.assert_array_equal(pack(np.array([5, 6]), 4), [[0x65]])


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("shape", [(5, 3, 3), (8, 16), (1,)])
def test_the_runtime_unpacks_the_same(bits: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    expected = np.random.default_rng(bits).integers(0, 2**bits, shape).astype(np.uint8)
    made = emission()
    name = made.add("Cast", emit_codes(made, expected, bits), to=TensorProto.FLOAT)
    np.testing.assert_array_equal(decoded_by_runtime(made, name, shape, tmp_path), expected)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("to", ["int8", "float32"])
def test_signed_codes_keep_their_sign(bits: int, to: str, tmp_path: Path) -> None:
    half = 2 ** (bits - 1)
    expected = np.random.default_rng(bits).integers(-half, half, (7, 5)).astype(np.int8)
    expected[0, :2] = -half, half - 1
    made = emission()
    name = pack_integers(made, expected, bits, to="int8" if to == "int8" else "float32")
    real = made.add("Cast", name, to=TensorProto.FLOAT) if to == "int8" else name
    np.testing.assert_array_equal(decoded_by_runtime(made, real, (7, 5), tmp_path), expected)


def test_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 bits hold 0\.\.3"):
        pack(np.array([4]), 2)
    with pytest.raises(ValueError, match=r"3 signed bits hold -4\.\.3"):
        pack_integers(emission(), np.array([-5]), 3)


def test_equal_widths_share_one_function() -> None:
    made = emission()
    for seed in range(3):
        emit_codes(made, np.random.default_rng(seed).integers(0, 8, (4, 6)), 3)
    assert list(made.functions) == ["unpack3"]

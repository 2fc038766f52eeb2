"""Integer weights with scales: what numpy decodes is what the runtime computes, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compressors.encodings import IntegerCodes
from compressors.encodings.scales import shorten_scale
from compressors.onnx_emission import Array
from tests.compressors.encodings.decoding import decoded_by_runtime, emission


def made_codes(
    bits: int, shape: tuple[int, ...], scale: tuple[int, ...], blocks: tuple[int, ...] | None, affine: bool
) -> IntegerCodes:
    rng = np.random.default_rng(bits)
    scales = rng.uniform(0.001, 3, scale).astype(np.float32)
    zero = rng.integers(0, 2**bits, scale).astype(np.uint8) if affine else np.array(2 ** (bits - 1), dtype=np.uint8)
    return IntegerCodes(rng.integers(0, 2**bits, shape).astype(np.uint8), bits, scales, zero, blocks)


CASES = [
    ((6, 4, 3, 3), (), None, False),
    ((6, 4, 3, 3), (6, 1, 1, 1), None, False),
    ((4, 6, 3), (1, 6, 1), None, True),
    ((5, 24), (5, 3, 1), (5, 3, 8), True),
    ((5, 3, 3, 3), (5, 4, 1), (5, 4, 7), False),  # rows of 27 filled up to 28
    ((7,), (), None, True),
]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_runtime_decodes_the_same(
    bits: int, case: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None, bool], tmp_path: Path
) -> None:
    codes = made_codes(bits, *case)
    made = emission()
    result = decoded_by_runtime(made, codes.emit(made), codes.shape, tmp_path)
    np.testing.assert_array_equal(result, codes.decode())
    assert result.dtype == np.float32
    stored = sum(len(tensor.raw_data) for tensor in made.initializers.values())
    assert codes.nbytes <= stored <= codes.nbytes + 8 * 12  # shapes


def test_decoding_by_hand() -> None:
    codes = IntegerCodes(
        np.array([[0, 1, 2], [3, 3, 0]], dtype=np.uint8),
        2,
        np.array([[[1.0], [2.0]], [[4.0], [8.0]]], dtype=np.float32),
        np.array(2, dtype=np.uint8),
        (2, 2, 2),
    )
    np.testing.assert_array_equal(codes.decode(), [[-2, -1, 0], [4, 4, -16]])
    assert codes.is_symmetric
    np.testing.assert_array_equal(codes.signed(), [[-2, -1, 0], [1, 1, -2]])
    assert codes.nbytes == 2 + 4 * 2 + 1  # eight codes of two bits, four scales in bfloat16, the zero point


@pytest.mark.parametrize("case", [case for case in CASES if len(case[0]) > 1], ids=str)
def test_rows_can_be_taken(case: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None, bool]) -> None:
    codes = made_codes(3, *case)
    rows = np.array([3, 0, 0, 2])
    np.testing.assert_array_equal(codes.take(rows).decode(), codes.decode()[rows])


@given(arrays.arrays(np.float32, 20, elements=st.floats(2.0**-100, 2.0**100, width=32)))
def test_short_scales_clip_nothing(scale: Array) -> None:
    shortened = shorten_scale(scale)
    assert np.all(shortened >= scale)
    assert np.all(shortened <= scale * (1 + 2.0**-7))
    np.testing.assert_array_equal(shorten_scale(shortened), shortened)

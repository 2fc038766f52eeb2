"""Sparse tensors: exact, never larger than dense ones, and folded by the runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from compressors.encodings.bits import packed_bytes
from compressors.encodings.sparse import emit_stored, sparse_layout, stored_bytes
from compressors.onnx_emission import Array
from tests.compressors.encodings.decoding import decoded_by_runtime, emission


def sparse_codes(bits: int, size: int, share: float, seed: int = 0, background: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, size).astype(np.uint8)
    codes[rng.random(size) < share] = background
    return codes


@given(st.integers(1, 8), st.integers(1, 4000), st.floats(0, 1), st.integers(0, 99))
def test_it_decodes_exactly_and_is_smaller(bits: int, size: int, share: float, seed: int) -> None:
    codes = sparse_codes(bits, size, share, seed, background=seed % 2**bits)
    layout = sparse_layout(codes, bits)
    if layout is None:
        assert stored_bytes(codes, bits) == packed_bytes(size, bits)
    else:
        np.testing.assert_array_equal(layout.decode(), codes)
        assert layout.nbytes(bits) == stored_bytes(codes, bits) < packed_bytes(size, bits)


@pytest.mark.parametrize(
    ("share", "kind", "bits"), [(0.6, "bitmap", 1), (0.9, "gaps", 6), (0.98, "gaps", 8), (1.0, "gaps", 2)]
)
def test_the_smaller_way_is_taken(share: float, kind: str, bits: int) -> None:
    weights = np.random.default_rng(0).standard_normal((100, 100)).astype(np.float32)
    weights[np.random.default_rng(1).random((100, 100)) < share] = 0
    layout = sparse_layout(weights, 32, 0)
    assert layout is not None
    assert (layout.kind, layout.bits) == (kind, bits)
    np.testing.assert_array_equal(layout.decode(), weights)
    others = layout.nbytes(32) - 4 * np.count_nonzero(weights)  # what the places take
    entropy = 0.0 if share == 1 else -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    assert others * 8 / weights.size < max(1.5 * entropy, 0.05)


def test_gaps_by_hand() -> None:
    weights = np.zeros(1000, dtype=np.float32)
    weights[[2, 9, 999]] = 1.0, 2.0, 3.0
    layout = sparse_layout(weights, 32, 0)
    assert layout is not None
    assert layout.bits == 8  # a run of 989 zeros is 3 fillers of 256 and a gap of 221
    np.testing.assert_array_equal(layout.places, [2, 6, 255, 255, 255, 221])
    np.testing.assert_array_equal(layout.values, [0, 1, 2, 0, 0, 0, 3])


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("share", [0.3, 0.7, 0.93, 1.0])
def test_the_runtime_decodes_the_same(bits: int, share: float, tmp_path: Path) -> None:
    codes = sparse_codes(bits, 60 * 70, share, bits).reshape(60, 7, 10)
    made = emission()
    name = made.add("Cast", emit_stored(made, codes, bits), to=TensorProto.FLOAT)
    np.testing.assert_array_equal(decoded_by_runtime(made, name, codes.shape, tmp_path), codes)
    stored = sum(len(tensor.raw_data) for tensor in made.initializers.values())
    assert stored <= stored_bytes(codes, bits) + 6 * 8  # shapes


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_floats_are_spread_by_the_runtime(share: float, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    weights[np.random.default_rng(1).random((40, 50)) < share] = -0.0
    layout = sparse_layout(weights, 32, 0)
    assert layout is not None
    made = emission()
    name = layout.emit(made, made.constant(layout.values))
    np.testing.assert_array_equal(decoded_by_runtime(made, name, weights.shape, tmp_path), weights)

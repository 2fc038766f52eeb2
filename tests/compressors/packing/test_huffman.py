"""Huffman codes: optimal, of limited length, and decoded to what was encoded."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compressors.huffman import code_lengths, encode, stream_bytes
from compressors.onnx_emission import Array
from compressors.packed_reader import PackedFileError
from compressors.packed_reader.huffman import LANE, decode, first_codes


def unlimited_cost(counts: Array) -> int:
    """Bits of an optimal code: the sum of all merged weights."""
    heap = [int(count) for count in counts if count]
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        cost += merged
        heapq.heappush(heap, merged)
    return cost


@given(arrays.arrays(np.int64, st.integers(2, 64), elements=st.integers(0, 1000)))
def test_lengths_are_optimal(counts: Array) -> None:
    lengths = code_lengths(counts)
    assert ((lengths > 0) == (counts > 0)).all()
    if np.count_nonzero(counts) > 1:
        assert int((counts * lengths).sum()) == unlimited_cost(counts)
        assert sum(2.0 ** -int(length) for length in lengths[lengths > 0]) == 1


def test_lengths_are_limited() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 30:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = code_lengths(np.array(fibonacci))
    assert lengths.max() == 15
    assert sum(2.0 ** -int(length) for length in lengths) == 1
    assert list(code_lengths(np.array([1, 1, 2, 4]), limit=2)) == [2, 2, 2, 2]
    with pytest.raises(ValueError, match="5 symbols: codes of at most 2 bits tell 4 apart"):
        code_lengths(np.ones(5, dtype=np.int64), limit=2)


def test_codes_are_canonical() -> None:
    """The example of RFC 1951, section 3.2.2."""
    lengths = np.array([3, 3, 3, 3, 3, 2, 4, 4], dtype=np.uint8)
    assert list(first_codes(lengths)) == [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]


@given(st.integers(1, 3 * LANE), st.integers(1, 256), st.floats(0, 0.99), st.integers(0, 99))
def test_streams_round_trip(count: int, symbols: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    given_symbols = rng.integers(0, symbols, count).astype(np.uint8)
    given_symbols[rng.random(count) < share] = symbols // 2
    counts = np.bincount(given_symbols, minlength=256)
    lengths = code_lengths(counts)
    stored = encode(given_symbols, lengths)
    assert len(stored) == stream_bytes(counts, lengths)
    decoded = decode(np.frombuffer(stored, dtype=np.uint8), lengths, count)
    np.testing.assert_array_equal(decoded, given_symbols)


def test_many_lanes_round_trip() -> None:
    rng = np.random.default_rng(0)
    symbols = np.minimum(rng.geometric(0.3, 1_500_000) - 1, 255).astype(np.uint8)
    lengths = code_lengths(np.bincount(symbols, minlength=256))
    stored = np.frombuffer(encode(symbols, lengths), dtype=np.uint8)
    np.testing.assert_array_equal(decode(stored, lengths, len(symbols)), symbols)
    entropy = 2.94 * len(symbols) / 8  # of this geometric distribution, in bytes
    assert entropy < len(stored) < 1.05 * entropy


@pytest.mark.parametrize("lengths", [[0, 0], [1, 2], [1, 1, 1], [16] * 4, [2, 2, 2]], ids=str)
def test_impossible_tables_are_refused(lengths: list[int]) -> None:
    with pytest.raises(PackedFileError, match="Huffman table"):
        decode(np.zeros(64, dtype=np.uint8), np.array(lengths, dtype=np.uint8), 8)

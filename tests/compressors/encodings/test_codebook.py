"""Codebooks: what numpy decodes is what the runtime computes, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressors.encodings.bits import packed_bytes
from compressors.encodings.codebook import Codebook, of_indices
from tests.compressors.encodings.decoding import decoded_by_runtime, emission


@pytest.mark.parametrize("size", [1, 2, 5, 16, 17, 128, 256])
@pytest.mark.parametrize(("share", "table"), [(0.0, 4), (0.9, 2)])
def test_the_runtime_decodes_the_same(size: int, share: float, table: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(size)
    codes = rng.integers(0, size, (24, 6, 3, 3)).astype(np.uint8)
    codes[rng.random(codes.shape) < share] = size // 2
    values = np.sort(rng.standard_normal(size)).astype(np.float16 if table == 2 else np.float32)
    book = Codebook(codes, values.astype(np.float32))
    made = emission()
    result = decoded_by_runtime(made, book.emit(made), book.shape, tmp_path)
    np.testing.assert_array_equal(result, book.decode())
    stored = sum(len(tensor.raw_data) for tensor in made.initializers.values())
    assert book.nbytes <= stored <= book.nbytes + 8 * 8  # shapes
    dense = packed_bytes(codes.size, book.bits) + table * size
    assert book.nbytes <= dense
    if share and size > 5:
        assert book.nbytes < 0.6 * dense


def test_equal_and_unused_centroids_disappear() -> None:
    book = of_indices(np.array([[0, 1], [3, 1]]), np.array([3.0, -1.0, 7.0, 3.0]))
    np.testing.assert_array_equal(book.centroids, [-1, 3])
    np.testing.assert_array_equal(book.codes, [[1, 0], [1, 0]])
    assert book.bits == 1


def test_rows_can_be_taken() -> None:
    book = of_indices(np.arange(12).reshape(4, 3), np.arange(12))
    np.testing.assert_array_equal(book.take(np.array([3, 3, 0])).decode(), [[9, 10, 11], [9, 10, 11], [0, 1, 2]])

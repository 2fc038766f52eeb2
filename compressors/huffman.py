"""Huffman codes of limited length, and streams that `packed_reader.huffman` decodes."""

from __future__ import annotations

import numpy as np

from compressors.packed_reader.element_types import Array
from compressors.packed_reader.huffman import LANE, MAXIMUM_LENGTH, first_codes


def code_lengths(counts: Array, limit: int = MAXIMUM_LENGTH) -> Array:
    """Bits of each symbol's code (uint8, 0 for a count of 0) that minimise sum(counts * lengths) with lengths <= limit.

    Package-merge (Larmore & Hirschberg 1990, Journal of the ACM 37(3)). A single symbol gets one bit.
    Raises ValueError if more than 2^limit symbols occur.
    """
    used = np.flatnonzero(counts)
    if len(used) > 2**limit:
        raise ValueError(f"{len(used)} symbols: codes of at most {limit} bits tell {2**limit} apart")
    lengths = np.zeros(len(counts), dtype=np.uint8)
    if len(used) == 1:
        lengths[used] = 1
    if len(used) < 2:
        return lengths
    order = used[np.argsort(counts[used], kind="stable")]
    weights = counts[order].astype(np.int64)
    members = np.eye(len(order), dtype=np.uint8)  # how often each symbol is in a package
    packages, contents = weights[:0], members[:0]
    for _ in range(limit):
        merged = np.concatenate([weights, packages])
        rows = np.concatenate([members, contents])
        rising = np.argsort(merged, kind="stable")
        merged, rows = merged[rising], rows[rising]
        pairs = len(merged) // 2
        last = merged, rows
        packages = merged[: 2 * pairs].reshape(-1, 2).sum(1)
        contents = rows[: 2 * pairs].reshape(pairs, 2, -1).sum(1, dtype=np.uint8)
    lengths[order] = last[1][: 2 * len(order) - 2].sum(0)
    return lengths


def stream_bytes(counts: Array, lengths: Array) -> int:
    """Length of what `encode` makes, at most one byte less."""
    return -(-int((counts * lengths.astype(np.int64)).sum()) // 8) + 2 * -(-int(counts.sum()) // LANE)


def encode(symbols: Array, lengths: Array) -> bytes:
    """Lane lengths in bits (uint16), then the codes. symbols: uint8, each with a length above 0."""
    if not len(symbols):
        return b""
    codes = first_codes(lengths).astype(np.int64)
    sizes = lengths[symbols].astype(np.int64)
    lanes = np.add.reduceat(sizes, np.arange(0, len(symbols), LANE))
    ends = np.cumsum(sizes)
    starts = ends - sizes
    # A code touches three bytes at most; where two codes share a byte, their bits add up.
    windows = codes[symbols] << (24 - sizes - (starts & 7))
    stream = np.zeros(int(ends[-1]) // 8 + 3)
    for index in range(3):
        stream += np.bincount((starts >> 3) + index, windows >> (16 - 8 * index) & 255, len(stream))
    return lanes.astype("<u2").tobytes() + stream[: -(-int(ends[-1]) // 8)].astype(np.uint8).tobytes()

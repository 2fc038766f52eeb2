"""Canonical Huffman codes, decoded many symbols at a time.

A stream is cut into lanes of `LANE` symbols whose lengths in bits are stored in front, so that all lanes advance
together: one table look-up per lane and step, vectorised over the lanes. Codes are assigned as in RFC 1951, section
3.2.2: by length, then by symbol, the first bit of a code being the most significant.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import PackedFileError

Array = npt.NDArray[Any]

LANE = 1024
MAXIMUM_LENGTH = 15  # bits of a code: a table of 2^15 entries
# Lanes that advance together: bounds the memory beside the result to about 10 MB.
BLOCK = 1024


def first_codes(lengths: Array) -> Array:
    """The code of each symbol (uint32; unused symbols get 0). lengths: uint8 per symbol, 0 where a symbol is unused."""
    codes = np.zeros(len(lengths), dtype=np.uint32)
    code = 0
    for length in range(1, MAXIMUM_LENGTH + 1):
        code <<= 1
        members = np.flatnonzero(lengths == length)
        codes[members] = code + np.arange(len(members), dtype=np.uint32)
        code += len(members)
    return codes


def _table(lengths: Array) -> tuple[Array, int]:
    """(symbol * 16 + length for each possible next `width` bits, width). Raises PackedFileError for an incomplete code,
    which would leave bit patterns without a meaning, and for an overfull one."""
    width = int(lengths.max(initial=0))
    used = np.flatnonzero(lengths)
    if not len(used) or width > MAXIMUM_LENGTH:
        raise PackedFileError("a Huffman table is empty or has codes of more than 15 bits; the file is damaged")
    if len(used) == 1:
        return np.full(2, used[0] * 16 + 1, dtype=np.uint16), 1
    if int((1 << (width - lengths[used].astype(np.int64))).sum()) != 1 << width:
        raise PackedFileError("a Huffman table does not describe a complete code; the file is damaged")
    ordered = used[np.lexsort((used, lengths[used]))]
    entries = (ordered * 16 + lengths[ordered]).astype(np.uint16)
    return np.repeat(entries, 1 << (width - lengths[ordered].astype(np.int64))), width


def decode(stored: Array, lengths: Array, count: int) -> Array:
    """`count` symbols (uint8) out of `stored` (uint8): lane lengths in bits as uint16 little-endian, then the codes."""
    table, width = _table(lengths)
    lanes = -(-count // LANE)
    if len(stored) < 2 * lanes:
        raise PackedFileError("a Huffman stream is shorter than its table of lanes; the file is cut off")
    ends = np.cumsum(stored[: 2 * lanes].view("<u2").astype(np.int64))
    bits = stored[2 * lanes :]
    if lanes and int(ends[-1]) > 8 * len(bits):
        raise PackedFileError("a Huffman stream is shorter than its lanes say; the file is cut off")
    symbols = np.empty(lanes * LANE, dtype=np.uint8)
    starts = ends - np.diff(ends, prepend=0)
    for first in range(0, lanes, BLOCK):
        last = min(first + BLOCK, lanes)
        tail = count - (lanes - 1) * LANE if last == lanes else LANE
        begin, end = int(starts[first]) // 8, -(-int(ends[last - 1]) // 8)
        found, reached = _decode_lanes(bits[begin:end], starts[first:last] - 8 * begin, tail, table, width)
        if not np.array_equal(reached + 8 * begin, ends[first:last]):
            raise PackedFileError("a Huffman stream ends in the middle of a code; the file is damaged")
        symbols[first * LANE : last * LANE] = found
    return symbols[:count]


def _decode_lanes(bits: Array, starts: Array, tail: int, table: Array, width: int) -> tuple[Array, Array]:
    """Symbols of all lanes behind one another, and the bit positions reached. tail: symbols of the last lane."""
    padded = np.zeros(len(bits) + LANE * MAXIMUM_LENGTH // 8 + 4, dtype=np.uint32)
    padded[: len(bits)] = bits
    windows = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]  # 24 bits from every byte on
    symbols = np.zeros((LANE, len(starts)), dtype=np.uint8)
    at = starts.copy()
    shift, mask = 24 - width, (1 << width) - 1
    for step in range(LANE):
        active = at if step < tail else at[:-1]
        if not len(active):
            break
        entries = table[(windows[active >> 3] >> (shift - (active & 7))) & mask]
        symbols[step, : len(active)] = entries >> 4
        active += entries & 15
    return symbols.T.reshape(-1), at

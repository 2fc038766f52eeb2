"""The container: a header that says how the file's bytes were coded, then the coded streams.

    "BANTAM01" | length of the header, uint32 little-endian | header: JSON, deflated | streams, behind one another

Header: sha256 and size of the ONNX file; `rest`, the stored size of the deflated bytes that belong to no tensor of its
own; `tensors`, each {at: bytes of `rest` in front of it, size, planes: [stream, ...]}. Byte i of a tensor comes from
plane i mod (number of planes). A stream is [stored size, code]; code is null for bytes as they are, "z" for deflate,
and [width, lengths] for Huffman symbols of `width` bits (lengths: one hexadecimal digit per symbol), which fill the
plane's bytes from the lowest bit on.

Everything that a header claims is checked before memory is spent on it, and the result against its sha256.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import PackedFileError
from .huffman import Array, decode

MAGIC = b"BANTAM01"
# The most that a file may expand to: no ONNX file is larger.
MAXIMUM_BYTES = 2**31
_MAXIMUM_HEADER = 2**24
_CHUNK = 2**20  # symbols that are packed into bytes at a time; a multiple of 8


def expand(content: bytes, *, maximum_bytes: int = MAXIMUM_BYTES) -> bytes:
    """The ONNX file, bit for bit. Needs memory for about twice its size.

    Raises PackedFileError for anything that is not what the writer made; nothing of it is returned.
    """
    header, start = _header(content)
    try:
        return _expand(memoryview(content)[start:], header, maximum_bytes)
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError, ValueError) as error:
        if isinstance(error, PackedFileError):
            raise
        raise PackedFileError(f"the header is not understood ({error!r}); the file is damaged") from error


def _header(content: bytes) -> tuple[Mapping[str, Any], int]:
    if content[: len(MAGIC)] != MAGIC:
        raise PackedFileError("this is no .bantam file, or one of another version; it must begin with BANTAM01")
    start = len(MAGIC) + 4
    length = int.from_bytes(content[len(MAGIC) : start], "little")
    if len(content) < start + length:
        raise PackedFileError(f"the header has {length} bytes and the file ends before; the file is cut off")
    text = _inflate(content[start : start + length], _MAXIMUM_HEADER, exact=False)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PackedFileError("the header is no JSON; the file is damaged") from error
    if not isinstance(header, dict):
        raise PackedFileError("the header is no mapping; the file is damaged")
    return header, start + length


def _expand(streams: memoryview, header: Mapping[str, Any], maximum_bytes: int) -> bytes:
    size = _number(header["size"])
    if size > maximum_bytes:
        raise PackedFileError(f"the file expands to {size} bytes, above the limit of {maximum_bytes}; raise the limit")
    tensors = header["tensors"]
    sizes = [_number(tensor["size"]) for tensor in tensors]
    rest_size = size - sum(sizes)
    if rest_size < 0:
        raise PackedFileError("the tensors are larger than the file that holds them; the file is damaged")
    stored = [_number(header["rest"])] + [_number(plane[0]) for tensor in tensors for plane in tensor["planes"]]
    if sum(stored) != len(streams):
        raise PackedFileError(
            f"the streams have {len(streams)} bytes where the header says {sum(stored)}; the file is cut off or damaged"
        )
    rest = _inflate(streams[: stored[0]], rest_size, exact=True)
    position, taken = stored[0], 0
    parts: list[bytes] = []
    for tensor, length in zip(tensors, sizes, strict=True):
        at = _number(tensor["at"])
        if not taken <= at <= len(rest):
            raise PackedFileError("a tensor's place lies outside the file; the file is damaged")
        parts.append(rest[taken:at])
        taken = at
        coded = sum(_number(plane[0]) for plane in tensor["planes"])
        parts.append(_tensor(streams[position : position + coded], tensor["planes"], length))
        position += coded
    result = b"".join([*parts, rest[taken:]])
    if hashlib.sha256(result).hexdigest() != header["sha256"]:
        raise PackedFileError("the expanded file has another sha256 than the one that was packed; the file is damaged")
    return result


def _tensor(streams: memoryview, planes: Sequence[Any], size: int) -> bytes:
    if not 1 <= len(planes) <= 8 or size % len(planes):
        raise PackedFileError(f"{size} bytes in {len(planes)} planes; the file is damaged")
    if len(planes) == 1:
        return _stream(streams, planes[0][1], size)
    joined = np.empty((size // len(planes), len(planes)), dtype=np.uint8)
    position = 0
    for index, (stored, code) in enumerate(planes):
        content = _stream(streams[position : position + stored], code, len(joined))
        joined[:, index] = np.frombuffer(content, dtype=np.uint8)
        position += stored
    return joined.tobytes()


def _stream(stored: memoryview, code: Any, size: int) -> bytes:
    if code is None:
        if len(stored) != size:
            raise PackedFileError(f"a stream has {len(stored)} bytes and should have {size}; the file is damaged")
        return bytes(stored)
    if code == "z":
        return _inflate(stored, size, exact=True)
    width, text = code
    if _number(width) not in range(1, 9) or len(text) != 2**width:
        raise PackedFileError(f"symbols of {width} bits with {len(text)} lengths; the file is damaged")
    try:
        lengths = np.array([int(digit, 16) for digit in text], dtype=np.uint8)
    except ValueError as error:
        raise PackedFileError("a Huffman table holds what is no length; the file is damaged") from error
    count = -(-8 * size // width)
    if count > 8 * len(stored):
        raise PackedFileError(f"{count} symbols in {len(stored)} bytes; the file is damaged")
    return _packed(decode(np.frombuffer(stored, dtype=np.uint8), lengths, count), width)[:size]


def _packed(symbols: Array, width: int) -> bytes:
    """Symbols behind one another, symbol i in the bits i * width .. from the lowest bit of byte 0 on."""
    if width == 8:
        return symbols.tobytes()
    parts = []
    for start in range(0, len(symbols), _CHUNK):
        chunk = symbols[start : start + _CHUNK, None]
        bits = np.unpackbits(chunk, axis=1, count=width, bitorder="little")
        parts.append(np.packbits(bits.reshape(-1), bitorder="little").tobytes())
    return b"".join(parts)


def _inflate(stored: bytes | memoryview, limit: int, *, exact: bool) -> bytes:
    """At most `limit` bytes; exact: neither fewer."""
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(stored, limit + 1)
    except zlib.error as error:
        raise PackedFileError(f"a deflated stream is damaged ({error})") from error
    if len(content) > limit or not inflater.eof or inflater.unused_data or (exact and len(content) != limit):
        raise PackedFileError("a deflated stream has another length than the header says; the file is damaged")
    return content


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise PackedFileError(f"the header holds {value!r} where a length belongs; the file is damaged")
    return value

"""Writes `.bantam` files: an ONNX file with its streams of codes Huffman-coded, which `packed_reader` expands again.

Deep Compression's last stage (Han et al. 2016, arXiv:1510.00149, section 4): indices of codebooks, gaps between sparse
weights and integer codes are far from evenly distributed, and fixed numbers of bits do not use that. Every tensor is
tried as it is, deflated, and as Huffman symbols of several widths; floats byte by byte, because their exponents repeat
where their mantissas do not. The smallest wins. All other bytes of the file are deflated together.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compressors.errors import UnsupportedModel
from compressors.huffman import code_lengths, encode, stream_bytes
from compressors.packed_reader import MAGIC, MAXIMUM_BYTES, PackedFileError, expand
from compressors.packed_reader.element_types import Array
from compressors.packed_reader.wire import Model, Tensor, model

_LEVEL = 9
# A tensor of its own costs about this much in the header.
_ENTRY = 24
_SMALLEST = 64
_ONNX_BITS = {21: 4, 22: 4, 23: 4}  # UINT4, INT4, FLOAT4E2M1
_ONNX_BYTES = {1: 4, 10: 2, 16: 2, 6: 4, 12: 4, 4: 2, 5: 2}  # FLOAT, FLOAT16, BFLOAT16, (U)INT32, (U)INT16


@dataclass(frozen=True)
class Packed:
    """content: the `.bantam` file. onnx_bytes: of the file that it expands to. zip_bytes: of a zip archive of that
    file, for comparison. coded: by tensor, how it was coded and from how many bytes to how many."""

    content: bytes
    onnx_bytes: int
    zip_bytes: int
    coded: Mapping[str, tuple[str, int, int]]

    @property
    def ratio(self) -> float:
        """Size of the packed file over that of the ONNX file."""
        return len(self.content) / self.onnx_bytes


@dataclass(frozen=True)
class _Stream:
    content: bytes
    code: Any  # as in the header
    label: str

    @property
    def cost(self) -> int:
        described = 0 if not isinstance(self.code, list) else len(set(self.code[1])) * len(self.code[1]) // 16
        return len(self.content) + described


def pack(onnx: bytes) -> Packed:
    """The same file in fewer bytes. The result has been expanded again and compared.

    Raises UnsupportedModel for what is no ONNX file, has its weights in a second file, or exceeds 2 GB.
    """
    if len(onnx) > MAXIMUM_BYTES:
        raise UnsupportedModel(f"the file has {len(onnx)} bytes: at most {MAXIMUM_BYTES} can be packed")
    try:
        found = model(memoryview(onnx))
    except PackedFileError as error:
        raise UnsupportedModel(f"cannot be packed: {error}") from error
    widths = _code_widths(found)
    rest: list[bytes] = []
    streams: list[bytes] = []
    entries: list[dict[str, Any]] = []
    coded: dict[str, tuple[str, int, int]] = {}
    position = taken = 0
    for tensor in found.initializers:
        content = onnx[tensor.start : tensor.stop]
        planes = _smallest(content, tensor, widths.get(tensor.name))
        if planes is None:
            continue
        rest.append(onnx[position : tensor.start])
        taken += len(rest[-1])
        position = tensor.stop
        entries.append({"at": taken, "size": len(content), "planes": [[len(s.content), s.code] for s in planes]})
        streams += [stream.content for stream in planes]
        label = ", ".join(dict.fromkeys(stream.label for stream in planes))
        coded[tensor.name] = (label, len(content), sum(len(stream.content) for stream in planes))
    remaining = zlib.compress(b"".join([*rest, onnx[position:]]), _LEVEL)
    packed = _joined(onnx, remaining, entries, streams)
    whole = _joined(onnx, zlib.compress(onnx, _LEVEL), [], [])
    if len(whole) <= len(packed):
        packed, coded = whole, {}
    if expand(packed) != onnx:
        raise AssertionError("a packed file does not expand to what was packed")
    return Packed(packed, len(onnx), _zip_bytes(onnx), coded)


def _joined(onnx: bytes, rest: bytes, entries: list[dict[str, Any]], streams: list[bytes]) -> bytes:
    header = {
        "sha256": hashlib.sha256(onnx).hexdigest(),
        "size": len(onnx),
        "rest": len(rest),
        "tensors": entries,
    }
    described = zlib.compress(json.dumps(header, separators=(",", ":")).encode(), _LEVEL)
    return b"".join([MAGIC, len(described).to_bytes(4, "little"), described, rest, *streams])


def _code_widths(found: Model) -> dict[str, int]:
    """Bits per code of the initialisers that the file unpacks itself."""
    widths = {}
    for node in found.nodes:
        match = re.fullmatch(r"unpack(\d)", node.operator)
        if match and node.domain and node.inputs:
            widths[node.inputs[0]] = int(match[1])
    return widths


def _smallest(content: bytes, tensor: Tensor, bits: int | None) -> list[_Stream] | None:
    """How to store a tensor on its own; None if it does as well among the other bytes."""
    if len(content) < _SMALLEST:
        return None
    array = np.frombuffer(content, dtype=np.uint8)
    deflated = zlib.compress(content, _LEVEL)
    candidates = [[_Stream(deflated, "z", "deflate")]]
    bits = bits or _ONNX_BITS.get(tensor.type, 8)
    candidates += [[stream] for stream in _huffman(array, bits)]
    count = _ONNX_BYTES.get(tensor.type, 1)
    if count > 1 and len(content) % count == 0:
        candidates.append([_plane(plane) for plane in array.reshape(-1, count).T])
    best = min(candidates, key=lambda planes: sum(stream.cost for stream in planes))
    plain = min(len(content), len(deflated))
    return best if sum(stream.cost for stream in best) + _ENTRY < plain else None


def _plane(array: Array) -> _Stream:
    plain = array.tobytes()
    return min(
        [_Stream(plain, None, "bytes"), _Stream(zlib.compress(plain, _LEVEL), "z", "deflate"), *_huffman(array, 8)],
        key=lambda stream: stream.cost,
    )


def _huffman(array: Array, bits: int) -> Iterator[_Stream]:
    """The best of several symbol widths: a code's own, multiples of it (several codes at once), and whole bytes."""
    best: tuple[int, int, Array, Array] | None = None
    for width in sorted({*range(bits, 9, bits), 8} - {1}):
        symbols = _symbols(array, width)
        counts = np.bincount(symbols, minlength=2**width)
        lengths = code_lengths(counts)
        size = stream_bytes(counts, lengths) + len(counts) // 4
        if best is None or size < best[0]:
            best = size, width, symbols, lengths
    if best is not None:
        _, width, symbols, lengths = best
        table = "".join(f"{length:x}" for length in lengths)
        yield _Stream(encode(symbols, lengths), [width, table], f"huffman {width} bits")


def _symbols(array: Array, width: int) -> Array:
    """The stream of bits of `array`, lowest bit first, cut into symbols of `width` bits; zeros fill up the last."""
    if width == 8:
        return array
    bits = np.unpackbits(array, bitorder="little")
    missing = -len(bits) % width
    padded = np.pad(bits, (0, missing)).reshape(-1, width)
    symbols: Array = np.packbits(padded, axis=1, bitorder="little").reshape(-1)
    return symbols


def _zip_bytes(content: bytes) -> int:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        archive.writestr("model.onnx", content)
    return len(buffer.getvalue())

"""The safetensors format (https://huggingface.co/docs/safetensors): a JSON header and the tensors' bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from .element_types import Array

_NAMES = {
    "float32": "F32",
    "float16": "F16",
    "float64": "F64",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "bool": "BOOL",
}


def safetensors_bytes(tensors: Mapping[str, Array]) -> bytes:
    """A file that holds `tensors` in their order."""
    header: dict[str, object] = {}
    parts: list[bytes] = []
    position = 0
    for name, array in tensors.items():
        content = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
        header[name] = {
            "dtype": _NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [position, position + len(content)],
        }
        parts.append(content)
        position += len(content)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])

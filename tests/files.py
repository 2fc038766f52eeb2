"""Small datasets that tests write to disk. Imports no torch, so that processes which tests spawn start quickly."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encode_image(pixels: np.ndarray[Any, Any], format: str = "PNG") -> bytes:
    """pixels: uint8 (H, W) or (H, W, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def random_images(count: int, height: int = 8, width: int = 8, *, channels: int = 3, seed: int = 0) -> list[bytes]:
    generator = np.random.default_rng(seed)
    shape = (count, height, width) if channels == 1 else (count, height, width, channels)
    return [encode_image(pixels) for pixels in generator.integers(0, 256, shape, dtype=np.uint8)]


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any] | pa.Array], *, row_group: int = 64) -> Path:
    pq.write_table(
        pa.table({name: pa.array(values) for name, values in columns.items()}), path, row_group_size=row_group
    )
    return path

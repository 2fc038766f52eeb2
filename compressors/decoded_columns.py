"""Columns as memory-mapped arrays: decoded once, kept under a content address, shared by all processes of a machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compressors.columns import encoded_images, plain_array, plain_type
from compressors.descriptions import ColumnDescription
from compressors.errors import InvalidData
from compressors.images import DECODER_VERSION, UnreadableImage, decode_class_ids, decode_image
from compressors.tables import Array, open_table

Shape = tuple[int, ...]

_VERSION = 2
_RESERVE = 64 * 2**20  # bytes that stay free on the disk


def decoded_column(
    path: Path,
    sha256: str,
    rows: int,
    column: ColumnDescription,
    *,
    channels: int | None,
    pad_to: int | None,
    cache: Path,
    fill: int = 0,
    class_ids: bool = False,
) -> Path:
    """The .npy file of one column, (rows, …): images as uint8 CHW, floats as float32, integers in their own dtype.

    channels: of images, 1 or 3. pad_to: lists are cut, or filled with `fill`, to this length. class_ids: images are
    masks, (height, width). Decodes if the file is not in `cache` yet; of several processes that ask at once, one
    decodes and the others wait. Raises InvalidData, naming column and row.
    """
    form = _Form.of(column, channels, pad_to, fill, class_ids)
    decoder = DECODER_VERSION if column.kind == "image" else ""
    address = f"{_VERSION}|{sha256}|{column.name}|{form}|{decoder}"
    target = cache / f"{hashlib.sha256(address.encode()).hexdigest()[:40]}.npy"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_suffix(".lock")):
        if not target.exists():
            _check_room(cache, rows, form, column.name)
            _write(path, target, rows, column, form)
    return target


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Ends with the process that holds it, so a killed one blocks nobody."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class _Form:
    """How the rows of a column are stored. shape: of one row. fill: what short lists end with."""

    shape: Shape
    dtype: str
    fill: int = 0
    class_ids: bool = False

    @classmethod
    def of(
        cls, column: ColumnDescription, channels: int | None, pad_to: int | None, fill: int, class_ids: bool
    ) -> _Form:
        dtype = column.dtype if column.kind in ("integer", "image") else "float32"
        if pad_to is not None:  # a column of unsigned numbers cannot hold -100
            return cls((pad_to,), "int64" if fill and column.kind == "integer" else dtype, fill)
        if column.shape is None:
            raise InvalidData(
                f"column {column.name!r}: rows have different shapes; bring them to one shape or set pad_to"
            )
        if column.kind == "image" and class_ids:
            return cls(column.shape[1:], dtype, class_ids=True)
        return cls((channels, *column.shape[1:]) if channels else column.shape, dtype)


def _check_room(cache: Path, rows: int, form: _Form, name: str) -> None:
    needed = rows * int(np.prod(form.shape, dtype=np.int64)) * np.dtype(form.dtype).itemsize + _RESERVE
    free = shutil.disk_usage(cache).free
    if needed > free:
        raise InvalidData(f"column {name!r}: decoding takes {needed} bytes, {free} are free on the disk; free some")


def _write(path: Path, target: Path, rows: int, column: ColumnDescription, form: _Form) -> None:
    part = target.with_name(f".{target.stem}.{uuid.uuid4().hex}.part")
    try:
        array = np.lib.format.open_memmap(part, mode="w+", dtype=np.dtype(form.dtype), shape=(rows, *form.shape))
        start = 0
        with open_table(path) as table:
            for batch in table.batches(column.name):
                array[start : start + len(batch)] = _decode(batch, column, form, start)
                start += len(batch)
        if start != rows:
            raise InvalidData(f"column {column.name!r}: {start} rows where {rows} are expected; upload the file again")
        array.flush()
        del array
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _decode(batch: Any, column: ColumnDescription, form: _Form, start: int) -> Array:
    shape, dtype = form.shape, np.dtype(form.dtype)
    if column.kind == "image":
        return _decode_images(batch, column.name, form, start)
    if column.kind not in ("integer", "float"):
        raise InvalidData(f"column {column.name!r} holds {column.dtype}; only images and numbers can be used")
    if not isinstance(batch, np.ndarray):
        if len(shape) == 1 and column.shape != shape:
            return _padded(batch, column.name, form, start)
        return _numbers(batch, column.name, shape, dtype, start)
    if column.shape == shape:
        return batch.astype(dtype)
    if batch.ndim != 2:
        raise InvalidData(f"column {column.name!r}: pad_to needs rows that are lists, these have shape {column.shape}")
    padded = np.full((len(batch), *shape), form.fill, dtype)
    width = min(shape[0], batch.shape[1])
    padded[:, :width] = batch[:, :width]
    return padded


def _decode_images(batch: pa.Array, name: str, form: _Form, start: int) -> Array:
    shape = form.shape
    encoded = encoded_images(batch)
    if encoded is None:
        raise InvalidData(f"column {name!r} does not hold encoded images")
    pixels = np.empty((len(batch), *shape), np.uint8)
    for i, value in enumerate(encoded.to_pylist()):
        where = f"column {name!r}, row {start + i}"
        if value is None:
            raise InvalidData(f"{where}: no image; remove the row")
        try:
            decoded = decode_class_ids(value) if form.class_ids else decode_image(value, shape[0])
        except UnreadableImage as error:
            raise InvalidData(f"{where}: {error}; remove or replace the row") from None
        if decoded.shape != shape:
            raise InvalidData(f"{where}: shape {decoded.shape} where {shape} is expected; resize the images")
        pixels[i] = decoded
    return pixels


def _numbers(batch: pa.Array, name: str, shape: Shape, dtype: np.dtype[Any], start: int) -> Array:
    array = plain_array(batch)
    _refuse_nulls(array, name, start)
    while pa.types.is_nested(plain_type(array.type)):
        array = plain_array(array.flatten())
        _refuse_nulls(array, name, start)
    values: Array = array.to_numpy(zero_copy_only=False)
    return values.astype(dtype).reshape(len(batch), *shape)


def _padded(batch: pa.Array, name: str, form: _Form, start: int) -> Array:
    width = form.shape[0]
    array = plain_array(batch)
    if not pa.types.is_nested(array.type):
        raise InvalidData(f"column {name!r}: pad_to needs rows that are lists, these are single values")
    _refuse_nulls(array, name, start)
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = plain_array(array.flatten())
    if pa.types.is_nested(flat.type):
        raise InvalidData(f"column {name!r}: pad_to needs plain lists, these hold lists themselves")
    _refuse_nulls(flat, name, start)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kept = position < width
    padded = np.full((len(lengths), width), form.fill, np.dtype(form.dtype))
    padded[rows[kept], position[kept]] = flat.to_numpy(zero_copy_only=False)[kept]
    return padded


def _refuse_nulls(array: pa.Array, name: str, start: int) -> None:
    if array.null_count:
        raise InvalidData(f"column {name!r}: missing values in or after row {start}; remove these rows")

"""Dataset files as tables: parquet, npz and safetensors, told apart by content, read column by column in batches.

Nothing is unpickled; object arrays are refused. Memory stays bounded by one batch of one column.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open

from compressors.errors import InvalidData

Array = np.ndarray[Any, np.dtype[Any]]
BATCH_BYTES = 16 * 2**20
_BATCH_ROWS = 8192
_IMAGE_ROWS = 512


@dataclass(frozen=True, kw_only=True)
class TableLimits:
    """bytes: of all columns when unpacked."""

    rows: int = 100_000_000
    columns: int = 1000
    bytes: int = 64 * 10**9


DEFAULT_LIMITS = TableLimits()


_DAMAGE = (
    pa.ArrowException,
    SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    LookupError,
    OverflowError,
    MemoryError,
)


class Table(Protocol):
    """An opened dataset file. Every column has `rows` rows."""

    @property
    def format(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def names(self) -> tuple[str, ...]: ...

    def batches(self, name: str) -> Iterator[pa.Array | Array]:
        """Rows in order: Arrow arrays from parquet, arrays of shape (n, …) otherwise. Raises InvalidData."""


@contextmanager
def open_table(path: Path, limits: TableLimits = DEFAULT_LIMITS) -> Iterator[Table]:
    """Raises InvalidData for a file that is none of the three formats, damaged, empty or above the limits."""
    with path.open("rb") as file:
        head = file.read(9)
        if head[:4] == b"PAR1":
            table: Table = _Parquet(path, limits)
        elif head[:4] == b"PK\x03\x04":
            table = _Npz(file, limits)
        elif len(head) == 9 and head[8:] == b"{":
            table = _Safetensors(path, limits)
        else:
            raise InvalidData("the file is neither parquet, npz nor safetensors; convert the data to one of these")
        if not table.names:
            raise InvalidData("the file has no columns; write at least inputs and labels")
        if len(table.names) > limits.columns:
            raise InvalidData(f"{len(table.names)} columns; the limit is {limits.columns}; keep those that are needed")
        if table.rows == 0:
            raise InvalidData("the file has no rows; write at least one")
        if table.rows > limits.rows:
            raise InvalidData(f"{table.rows} rows; the limit is {limits.rows}; take a sample")
        yield table


@contextmanager
def _damage_as_invalid(what: str) -> Iterator[None]:
    try:
        yield
    except InvalidData:
        raise
    except _DAMAGE as error:
        reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise InvalidData(f"{what} cannot be read ({reason[0][:160]}); write the file again and upload it") from None


class _Parquet:
    format = "parquet"

    def __init__(self, path: Path, limits: TableLimits) -> None:
        with _damage_as_invalid("the parquet file"):
            self._file = pq.ParquetFile(path, memory_map=False, page_checksum_verification=True)
            metadata = self._file.metadata
            size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        if size > limits.bytes:
            raise InvalidData(f"{size} bytes when unpacked; the limit is {limits.bytes}; take a sample")
        self.rows: int = metadata.num_rows
        self.names: tuple[str, ...] = tuple(self._file.schema_arrow.names)
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise InvalidData(f"column {twice!r} occurs twice; rename one")

    def batches(self, name: str) -> Iterator[pa.Array]:
        kind = self._file.schema_arrow.field(name).type
        rows = _IMAGE_ROWS if pa.types.is_nested(kind) or pa.types.is_large_binary(kind) else _BATCH_ROWS
        if pa.types.is_binary(kind):
            rows = _IMAGE_ROWS
        with _damage_as_invalid(f"column {name!r}"):
            for batch in self._file.iter_batches(batch_size=rows, columns=[name], use_threads=False):
                yield batch.column(0)


class _Npz:
    format = "npz"

    def __init__(self, file: IO[bytes], limits: TableLimits) -> None:
        with _damage_as_invalid("the npz file"):
            file.seek(0)
            self._archive = zipfile.ZipFile(file)
            infos = {info.filename.removesuffix(".npy"): info for info in self._archive.infolist()}
        size = sum(info.file_size for info in infos.values())
        if size > limits.bytes:
            raise InvalidData(f"{size} bytes when unpacked; the limit is {limits.bytes}; take a sample")
        other = [info.filename for info in infos.values() if not info.filename.endswith(".npy")]
        if other:
            raise InvalidData(f"member {other[0]!r} is not an array; write the file with numpy.savez")
        self._infos = infos
        self.names: tuple[str, ...] = tuple(infos)
        shapes = {}
        for name in self.names[: limits.columns]:
            with self._opened(name) as (_, shape, _):
                shapes[name] = shape
        self.rows = _common_rows(shapes)

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
        with _damage_as_invalid(f"column {name!r}"), self._archive.open(self._infos[name]) as stream:
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read(stream, max_header_size=10_000)
            if dtype.hasobject:
                raise InvalidData(
                    f"column {name!r} holds Python objects, which are pickled; convert it to plain numbers"
                )
            if fortran and len(shape) > 1:
                raise InvalidData(f"column {name!r} is stored in Fortran order; save numpy.ascontiguousarray of it")
            yield stream, shape, dtype

    def batches(self, name: str) -> Iterator[Array]:
        with self._opened(name) as (stream, shape, dtype):
            row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
            step = max(1, min(_BATCH_ROWS, BATCH_BYTES // max(row_bytes, 1)))
            for start in range(0, shape[0], step):
                count = min(step, shape[0] - start)
                content = _read_exactly(stream, count * row_bytes)
                yield np.frombuffer(content, dtype).reshape(count, *shape[1:])


class _Safetensors:
    format = "safetensors"

    def __init__(self, path: Path, limits: TableLimits) -> None:
        with _damage_as_invalid("the safetensors file"):
            self._file = cast(Any, safe_open(path, framework="numpy"))
            self.names: tuple[str, ...] = tuple(self._file.keys())
            slices = {name: self._file.get_slice(name) for name in self.names}
        for name, part in slices.items():
            if part.get_dtype() not in _SAFETENSORS_DTYPES:
                raise InvalidData(f"column {name!r} has dtype {part.get_dtype()}; convert it to float32 or int64")
        if path.stat().st_size > limits.bytes:
            raise InvalidData(f"{path.stat().st_size} bytes; the limit is {limits.bytes}; take a sample")
        self._slices = slices
        self.rows = _common_rows({name: tuple(part.get_shape()) for name, part in slices.items()})

    def batches(self, name: str) -> Iterator[Array]:
        part = self._slices[name]
        row_bytes = 8 * int(np.prod(part.get_shape()[1:], dtype=np.int64))
        step = max(1, min(_BATCH_ROWS, BATCH_BYTES // max(row_bytes, 1)))
        with _damage_as_invalid(f"column {name!r}"):
            for start in range(0, self.rows, step):
                yield part[start : min(start + step, self.rows)]


_SAFETENSORS_DTYPES = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64"})


def _common_rows(shapes: dict[str, tuple[int, ...]]) -> int:
    rows: dict[int, str] = {}
    for name, shape in shapes.items():
        if not shape:
            raise InvalidData(f"column {name!r} is a single number; the first dimension must count the rows")
        rows.setdefault(shape[0], name)
    if len(rows) > 1:
        (first, a), (second, b) = list(rows.items())[:2]
        raise InvalidData(f"column {a!r} has {first} rows and {b!r} has {second}; all columns need the same number")
    return next(iter(rows), 0)


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    buffer = io.BytesIO()
    while buffer.tell() < size:
        chunk = stream.read(size - buffer.tell())
        if not chunk:
            raise EOFError(f"{size - buffer.tell()} bytes are missing")
        buffer.write(chunk)
    return buffer.getvalue()

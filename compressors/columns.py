"""What a dataset holds: every row is read once, when it is uploaded, so that a job can be refused before it starts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compressors.descriptions import ColumnDescription, ColumnKind, DatasetDescription
from compressors.errors import InvalidData
from compressors.images import ImageFacts, UnreadableImage, image_facts
from compressors.tables import DEFAULT_LIMITS, Array, Table, TableLimits, open_table

MAX_DISTINCT = 10_000
_THREADS = 2
Shape = tuple[int, ...]


def describe_dataset(path: Path, limits: TableLimits = DEFAULT_LIMITS) -> DatasetDescription:
    """Reads the whole file. Raises InvalidData, naming column, row and remedy, if it cannot be read.

    Missing, non-finite and undecodable values do not raise: they are counted, and matter only if a job uses the column.
    """
    with open_table(path, limits) as table:
        columns = tuple(_describe(table, name) for name in table.names)
        return DatasetDescription(format=table.format, rows=table.rows, columns=columns)


@dataclass
class _Facts:
    """Accumulates over batches. shape: None at first; `ragged` once rows differ."""

    shape: Shape | None = None
    ragged: bool = False
    nulls: int = 0
    non_finite: int = 0
    unreadable: int = 0
    minimum: float | None = None
    maximum: float | None = None
    first_bad_row: int | None = None
    rows: int = 0
    distinct: set[Any] | None = field(default_factory=set)

    def add_bad(self, rows: Array, kind: str) -> None:
        """rows: indices into the current batch; a row counts once per kind."""
        unique = np.unique(rows)
        if unique.size:
            setattr(self, kind, getattr(self, kind) + int(unique.size))
            first = self.rows + int(unique[0])
            self.first_bad_row = first if self.first_bad_row is None else min(self.first_bad_row, first)

    def add_shape(self, shape: Shape | None) -> None:
        """shape: of every row of the batch; None if they differ among themselves."""
        if shape is None or (self.shape is not None and self.shape != shape):
            self.ragged = True
        self.shape = shape if self.shape is None else self.shape

    def add_values(self, values: Array) -> None:
        """values: finite numbers."""
        if values.size:
            low, high = float(values.min()), float(values.max())
            self.minimum = low if self.minimum is None else min(self.minimum, low)
            self.maximum = high if self.maximum is None else max(self.maximum, high)

    def add_distinct(self, values: list[Any]) -> None:
        if self.distinct is not None:
            self.distinct.update(values)
            if len(self.distinct) > MAX_DISTINCT:
                self.distinct = None

    def description(self, name: str, kind: ColumnKind, dtype: str, *, scalar: bool) -> ColumnDescription:
        return ColumnDescription(
            name=name,
            kind=kind,
            dtype=dtype,
            shape=None if self.ragged else self.shape,
            nulls=self.nulls,
            non_finite=self.non_finite,
            unreadable=self.unreadable,
            minimum=self.minimum,
            maximum=self.maximum,
            distinct=len(self.distinct) if scalar and self.distinct is not None else None,
            first_bad_row=self.first_bad_row,
        )


def _describe(table: Table, name: str) -> ColumnDescription:
    batches = table.batches(name)
    first = next(batches, None)
    if first is None:
        raise InvalidData(f"column {name!r} has no rows; write the file again and upload it")
    whole = itertools.chain([first], batches)
    if isinstance(first, np.ndarray):
        return _describe_numbers(name, ((batch, None) for batch in whole), first.dtype)
    kind = plain_type(first.type)
    encoded = encoded_images(first)
    if encoded is not None:
        if any(value is not None and _is_image(value) for value in encoded.to_pylist()):
            return _describe_images(name, whole)
        return _describe_opaque(name, whole, "binary", "other")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _describe_opaque(name, whole, "string", "text")
    leaf = kind
    while _is_list(leaf):
        leaf = plain_type(leaf.value_type)
    if pa.types.is_integer(leaf) or pa.types.is_floating(leaf) or pa.types.is_boolean(leaf):
        return _describe_numbers(name, ((batch, batch) for batch in whole), np.dtype(leaf.to_pandas_dtype()))
    return _describe_opaque(name, whole, str(kind), "other")


# --- numbers ---------------------------------------------------------------------------------------------------------


def _describe_numbers(name: str, batches: Iterator[tuple[Any, Any]], dtype: np.dtype[Any]) -> ColumnDescription:
    if dtype.kind not in "iufb":
        return ColumnDescription(name=name, kind="other", dtype=str(dtype), shape=None)
    facts = _Facts()
    for array, arrow in batches:
        if arrow is None:
            values, rows, shape, count = _flat_numpy(array)
            facts.add_shape(shape)
        else:
            values, rows, count = _flat_arrow(arrow, facts)
        if dtype.kind == "f":
            finite = np.isfinite(values)
            facts.add_bad(rows[~finite], "non_finite")
            values = values[finite]
        facts.add_values(values)
        if facts.shape == () and facts.distinct is not None:
            facts.add_distinct(np.unique(values).tolist())
        facts.rows += count
    kind: ColumnKind = "float" if dtype.kind == "f" else "integer"
    return facts.description(name, kind, str(dtype), scalar=facts.shape == ())


def _flat_numpy(array: Array) -> tuple[Array, Array, Shape, int]:
    """All values of the batch, the row of each, the shape of a row, the number of rows."""
    count = array.shape[0]
    rows = np.repeat(np.arange(count), int(np.prod(array.shape[1:], dtype=np.int64)))
    return array.reshape(-1), rows, array.shape[1:], count


def _flat_arrow(array: pa.Array, facts: _Facts) -> tuple[Array, Array, int]:
    """Values that are present and the row of each; adds missing values and the shape of the rows to `facts`."""
    count = len(array)
    rows = np.arange(count)
    missing = []
    shape: Shape | None = ()
    array = plain_array(array)
    while _is_list(array.type):
        missing.append(rows[_null_mask(array)])
        lengths = pc.list_value_length(array)
        known = np.unique(lengths.drop_null().to_numpy(zero_copy_only=False))
        shape = None if shape is None or len(known) != 1 else (*shape, int(known[0]))
        rows = np.repeat(rows, lengths.fill_null(0).to_numpy(zero_copy_only=False))
        array = plain_array(array.flatten())
    missing.append(rows[_null_mask(array)])
    if len(rows):
        facts.add_shape(shape)
    facts.add_bad(np.concatenate(missing), "nulls")
    present = ~_null_mask(array)
    return array.drop_null().to_numpy(zero_copy_only=False), rows[present], count


def _null_mask(array: pa.Array) -> Array:
    mask: Array = array.is_null().to_numpy(zero_copy_only=False)
    return mask


# --- images, text, anything else --------------------------------------------------------------------------------------


def _describe_images(name: str, batches: Iterator[pa.Array]) -> ColumnDescription:
    facts = _Facts()
    channels = 1
    ids: set[tuple[int, int] | None] = set()
    with ThreadPoolExecutor(_THREADS) as pool:  # decoders let go of the interpreter's lock
        for batch in batches:
            encoded = encoded_images(batch)
            assert encoded is not None
            values = encoded.to_pylist()
            size = -(-len(values) // _THREADS)
            parts = [values[i : i + size] for i in range(0, len(values), size)]
            starts = [facts.rows + i for i in range(0, len(values), size)]
            found = [f for part in pool.map(_images, parts, starts, [name] * len(parts)) for f in part]
            shapes = [None if image is None else image.shape for image in found]
            ids |= {image.class_ids for image in found if image is not None}
            facts.add_bad(np.flatnonzero([value is None for value in values]), "nulls")
            bad = [shape is None and value is not None for shape, value in zip(shapes, values, strict=True)]
            facts.add_bad(np.flatnonzero(bad), "unreadable")
            for shape in {shape for shape in shapes if shape is not None}:
                channels = max(channels, shape[0])
                facts.add_shape(shape[1:])
            facts.rows += len(values)
    # A few grayscale images among colour images are converted when they are used.
    facts.shape = None if facts.shape is None else (channels, *facts.shape)
    if None not in ids:
        facts.add_values(np.array(list(ids)))
    return facts.description(name, "image", "uint8", scalar=False)


def _images(values: list[bytes | None], start: int, name: str) -> list[ImageFacts | None]:
    images: list[ImageFacts | None] = []
    for i, value in enumerate(values):
        try:
            images.append(None if value is None else image_facts(value))
        except UnreadableImage:
            images.append(None)
        except InvalidData as error:
            raise InvalidData(f"column {name!r}, row {start + i}: {error}") from None
    return images


def _is_image(value: bytes) -> bool:
    try:
        image_facts(value)
    except UnreadableImage:
        return False
    except InvalidData:
        return True
    return True


def _describe_opaque(name: str, batches: Iterator[pa.Array], dtype: str, kind: ColumnKind) -> ColumnDescription:
    facts = _Facts()
    for batch in batches:
        array = plain_array(batch)
        facts.add_bad(np.flatnonzero(_null_mask(array)), "nulls")
        if kind == "text" and facts.distinct is not None:
            facts.add_distinct(array.drop_null().unique().to_pylist())
        facts.rows += len(array)
    facts.shape = () if kind == "text" else None
    return facts.description(name, kind, dtype, scalar=kind == "text")


# --- Arrow types ------------------------------------------------------------------------------------------------------


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type below extensions and dictionaries."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    return plain_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def plain_array(array: pa.Array) -> pa.Array:
    """The values below extensions and dictionaries."""
    if isinstance(array, pa.ExtensionArray):
        return plain_array(array.storage)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def encoded_images(array: pa.Array) -> pa.Array | None:
    """The bytes of a column that can hold images: binary, or a struct with 'bytes' as Hugging Face writes it."""
    array = plain_array(array)
    if pa.types.is_struct(array.type) and array.type.get_field_index("bytes") >= 0:
        array = pc.struct_field(array, "bytes")
    kind = array.type
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return array if is_bytes else None


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))

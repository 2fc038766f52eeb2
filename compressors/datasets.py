"""Rows of a dataset as the arrays that a model takes: memory-mapped, converted batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from compressors.decoded_columns import decoded_column
from compressors.descriptions import ColumnDescription, DatasetDescription, TensorDescription
from compressors.errors import InvalidData
from compressors.tables import Array

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class InputColumn:
    """One model input read from one column. scale: multiplies the values and makes integers floats.

    pad_to: lists are cut or filled with 0 to this length.
    """

    column: str
    scale: float | None = None
    pad_to: int | None = None


@dataclass(frozen=True, kw_only=True)
class TargetColumn:
    """length: lists are cut, or filled with `fill`, to it. class_ids: images are masks, whose pixels are class ids."""

    column: str
    length: int | None = None
    fill: int = 0
    class_ids: bool = False


@dataclass(frozen=True, kw_only=True)
class _Source:
    """How one column becomes an array. shape: of one row as the model takes it."""

    path: Path
    shape: Shape
    dtype: str
    is_image: bool = False
    scale: float | None = None

    def read(self, array: Array, index: Array | slice) -> Array:
        values = array[index]
        if self.is_image:  # exactly value / 255 in float32, as anyone who checks an artifact would compute it
            values = values.astype(np.float32) / np.float32(255)
        if self.scale is not None:
            values = values.astype(np.float32) * np.float32(self.scale)
        return np.ascontiguousarray(values.reshape(len(values), *self.shape).astype(self.dtype, copy=False))


class Rows:
    """Inputs and target of a dataset, or of some of its rows. Cheap to pass to another process: it holds paths only.

    Made by `open_rows`; not changed afterwards.
    """

    def __init__(
        self, sources: Sequence[_Source], target: _Source, group: _Source | None, index: Array | None, count: int
    ) -> None:
        self._sources = tuple(sources)
        self._target = target
        self._group = group
        self._index = index
        self._count = count

    def __len__(self) -> int:
        return self._count if self._index is None else len(self._index)

    def inputs(self, index: Array) -> tuple[Array, ...]:
        """One array per model input, (len(index), …), in the dtype the model takes."""
        rows = self._resolve(index)
        return tuple(source.read(array, rows) for source, array in zip(self._sources, self._arrays, strict=True))

    def target(self, index: Array) -> Array:
        """(len(index), …): int64 of integers and masks, else float32. Tasks bring it to the shape that they need."""
        return self._target.read(self._target_array, self._resolve(index))

    @property
    def targets(self) -> Array:
        """Of all rows."""
        return self.target(np.arange(len(self)))

    def groups(self, index: Array) -> Array | None:
        """int64 (len(index),): which rows belong together; None if no column says so."""
        if self._group is None or self._group_array is None:
            return None
        return self._group.read(self._group_array, self._resolve(index))

    def subset(self, index: Array) -> Rows:
        """A view of these rows, in this order; nothing is copied."""
        return Rows(self._sources, self._target, self._group, self._resolve(index), self._count)

    def _resolve(self, index: Array) -> Array:
        index = np.asarray(index)
        if index.dtype.kind not in "iu" or index.ndim != 1:
            raise InvalidData(
                f"row numbers of dtype {index.dtype} and shape {index.shape}; a list of integers is needed"
            )
        if index.size and not (index.min() >= 0 and index.max() < len(self)):
            raise InvalidData(f"row numbers {index.min()}..{index.max()}; there are rows 0..{len(self) - 1}")
        return index if self._index is None else self._index[index]

    @cached_property
    def _arrays(self) -> tuple[Array, ...]:
        return tuple(_mapped(source) for source in self._sources)

    @cached_property
    def _target_array(self) -> Array:
        return _mapped(self._target)

    @cached_property
    def _group_array(self) -> Array | None:
        return None if self._group is None else _mapped(self._group)

    def __getstate__(self) -> dict[str, Any]:
        """Without the mappings, which would be sent as whole arrays."""
        mapped = ("_arrays", "_target_array", "_group_array")
        return {name: value for name, value in vars(self).items() if name not in mapped}


def _mapped(source: _Source) -> Array:
    loaded: Array = np.load(source.path, mmap_mode="r", allow_pickle=False)
    return loaded


def open_rows(
    path: Path,
    description: DatasetDescription,
    columns: Sequence[InputColumn],
    target: TargetColumn,
    cache: Path,
    sha256: str,
    expected: Sequence[TensorDescription],
    group: str | None = None,
) -> Rows:
    """Decodes what is not in `cache` yet (seconds for 50,000 small images) and maps it.

    columns: one per model input, in its order. sha256: of the file at `path`. expected: the model's inputs. group: an
    integer column. Raises InvalidData, naming column, value and remedy.
    """
    if len(columns) != len(expected):
        raise InvalidData(f"{len(columns)} input columns for a model with {len(expected)} inputs; name one for each")
    known = {column.name: column for column in description.columns}

    def find(name: str) -> ColumnDescription:
        if name not in known:
            raise InvalidData(f"column {name!r} is not in the dataset; it has {', '.join(map(repr, known))}")
        return known[name]

    def source(column: InputColumn, tensor: TensorDescription) -> _Source:
        found = find(column.column)
        problem = dtype_problem(found, tensor, column.scale)
        if problem is not None:
            raise InvalidData(problem)
        shape = input_shape(found, tensor, column.pad_to)
        channels = shape[0] if found.kind == "image" else None
        decoded = decoded_column(
            path, sha256, description.rows, found, channels=channels, pad_to=column.pad_to, cache=cache
        )
        is_image = found.kind == "image"
        return _Source(path=decoded, shape=shape, dtype=tensor.dtype, is_image=is_image, scale=column.scale)

    def answers() -> _Source:
        found = find(target.column)
        wanted = ("integer", "float", "image") if target.class_ids else ("integer", "float")
        if found.kind not in wanted:
            raise InvalidData(f"target column {target.column!r} holds {found.kind}; {' or '.join(wanted)} is needed")
        stored = decoded_column(
            path,
            sha256,
            description.rows,
            found,
            channels=None,
            pad_to=target.length,
            cache=cache,
            fill=target.fill,
            class_ids=target.class_ids,
        )
        shape: Shape = np.load(stored, mmap_mode="r", allow_pickle=False).shape[1:]
        return _Source(path=stored, shape=shape, dtype="float32" if found.kind == "float" else "int64")

    def belonging(name: str) -> _Source:
        found = find(name)
        if found.kind != "integer" or found.shape != ():
            raise InvalidData(f"group column {name!r} holds {found.kind} of shape {found.shape}; integers are needed")
        stored = decoded_column(path, sha256, description.rows, found, channels=None, pad_to=None, cache=cache)
        return _Source(path=stored, shape=(), dtype="int64")

    answered = answers()
    sources = [source(column, tensor) for column, tensor in zip(columns, expected, strict=True)]
    return Rows(sources, answered, None if group is None else belonging(group), None, description.rows)


def input_shape(column: ColumnDescription, tensor: TensorDescription, pad_to: int | None) -> Shape:
    """The shape of one row as the model takes it. Raises InvalidData where the column does not fit.

    Images are converted to the model's number of channels; dimensions of length 1 may be missing or added otherwise.
    """
    wanted = tensor.shape[1:]
    shape = (pad_to,) if pad_to is not None else column.shape
    text = f"({', '.join('any' if size is None else str(size) for size in wanted)})"
    if shape is None:
        raise InvalidData(
            f"column {column.name!r}: rows have different shapes, the model's input {tensor.name!r} takes {text}; "
            f"{'resize the images to one size' if column.kind == 'image' else 'bring them to one shape or set pad_to'}"
        )
    if column.kind == "image":
        if len(wanted) != 3 or wanted[0] not in (1, 3):
            raise InvalidData(
                f"column {column.name!r} holds images, the model's input {tensor.name!r} takes {text}; "
                "images become 1 or 3 channels by height by width"
            )
        shape = (wanted[0], *shape[1:])
    if fits(shape, wanted):
        return shape
    given = [size for size in shape if size != 1]
    fixed = tuple(size for size in wanted if size is not None)
    if column.kind != "image" and len(fixed) == len(wanted) and given == [size for size in fixed if size != 1]:
        return fixed
    hint = "resize the images" if column.kind == "image" else "reshape the column"
    if column.kind != "image" and len(shape) == 3 and fits((shape[2], shape[0], shape[1]), wanted):
        hint = "store channels first: numpy.transpose(column, (0, 3, 1, 2))"
    raise InvalidData(
        f"column {column.name!r} has rows of shape {shape}, the model's input {tensor.name!r} takes {text}; {hint}"
    )


def fits(shape: Shape, wanted: Sequence[int | None]) -> bool:
    """Whether rows of this shape go into an input whose free dimensions are None."""
    return len(shape) == len(wanted) and all(w in (None, s) for s, w in zip(shape, wanted, strict=True))


def dtype_problem(column: ColumnDescription, tensor: TensorDescription, scale: float | None) -> str | None:
    """Why the column's values cannot be given to this input; None if they can."""
    takes_floats = tensor.dtype in ("float32", "float64", "float16")
    takes_integers = tensor.dtype in ("int64", "int32", "int16", "int8", "uint8", "bool")
    what = f"column {column.name!r} holds {'text' if column.kind == 'text' else column.dtype}"
    takes = f"the model's input {tensor.name!r} takes {tensor.dtype}"
    if not takes_floats and not takes_integers:
        return f"{takes}, which data cannot be read as; export the model with float32 or int64 inputs"
    if column.kind in ("text", "other"):
        return f"{what}, {takes}; turn it into {'token ids' if takes_integers else 'numbers'} first"
    gives_floats = column.kind in ("image", "float") or scale is not None
    if gives_floats and takes_integers:
        remedy = "leave scale out" if column.kind == "integer" else "store token ids as integers"
        return f"{what}{' and scale makes it float' if column.kind == 'integer' else ''}, {takes}; {remedy}"
    if not gives_floats and takes_floats:
        return (
            f"{what}, {takes}; store it as float32, or give a scale, e.g. {{'column': {column.name!r}, 'scale': 1.0}}"
        )
    return None

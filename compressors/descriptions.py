"""What is known of a model and of a dataset once they are read: plain data, kept in SQL, no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class TensorDescription:
    """shape: None stands for a dynamic dimension (the batch is dimension 0). dtype: torch's short name, 'float32'.

    id_limit: of an integer input that is looked up in an embedding, the number of ids: 0 <= id < id_limit.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    id_limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class LayerDescription:
    """One layer that techniques see. kind: 'Conv2d', 'Linear', 'BatchNorm2d', …; macs per sample."""

    name: str
    kind: str
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """format: 'pt2'. parameters: count of trained values. batch_is_dynamic: dimension 0 of every input is free.

    unsupported: why no runtime can run the model as it is (the operator and where it stands); None: it can be exported.
    """

    format: str
    parameters: int
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]
    layers: tuple[LayerDescription, ...]
    batch_is_dynamic: bool
    unsupported: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ModelDescription:
        def tensors(key: str) -> tuple[TensorDescription, ...]:
            return tuple(
                TensorDescription(name=t["name"], shape=tuple(t["shape"]), dtype=t["dtype"], id_limit=t.get("id_limit"))
                for t in document[key]
            )

        return cls(
            format=document["format"],
            parameters=document["parameters"],
            inputs=tensors("inputs"),
            outputs=tensors("outputs"),
            layers=tuple(LayerDescription(**layer) for layer in document["layers"]),
            batch_is_dynamic=document["batch_is_dynamic"],
            unsupported=document.get("unsupported"),
        )


def shape_text(shape: tuple[int | None, ...]) -> str:
    """A shape as messages write it: '(any, 3, 32, 32)'."""
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


ColumnKind = Literal["image", "integer", "float", "text", "other"]


@dataclass(frozen=True, kw_only=True)
class ColumnDescription:
    """One column, read once in full when the dataset is uploaded.

    kind: image (encoded bytes), integer, float, text or other. shape: of one row, after decoding, CHW for images;
    None where rows differ. nulls, non_finite: number of rows with a missing or NaN/inf value. unreadable: images that
    do not decode. minimum, maximum: over all finite values (None for text); of images over their class ids, where every
    image can be read as such (gray or palette pixels, stored without loss). distinct: number of different values of a
    scalar column (None beyond 10,000). first_bad_row: first null, non-finite or unreadable row.
    """

    name: str
    kind: ColumnKind
    dtype: str
    shape: tuple[int, ...] | None
    nulls: int = 0
    non_finite: int = 0
    unreadable: int = 0
    minimum: float | None = None
    maximum: float | None = None
    distinct: int | None = None
    first_bad_row: int | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """format: 'parquet', 'npz' or 'safetensors'."""

    format: str
    rows: int
    columns: tuple[ColumnDescription, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> DatasetDescription:
        columns = tuple(
            ColumnDescription(**{**c, "shape": None if c["shape"] is None else tuple(c["shape"])})
            for c in document["columns"]
        )
        return cls(format=document["format"], rows=document["rows"], columns=columns)

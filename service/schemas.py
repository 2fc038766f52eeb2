"""JSON Schemas of what this installation can do, derived from the same types that check a request."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, TypeAdapter


def schema_of(kind: type) -> dict[str, Any]:
    """JSON Schema (2020-12) of a frozen dataclass or a pydantic model."""
    if issubclass(kind, BaseModel):
        return kind.model_json_schema()
    return TypeAdapter(kind).json_schema()

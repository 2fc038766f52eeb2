"""Plain JSON out of an uploaded file, taken apart value by value. Every failure is an UnsafeArchive that says where."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from compressors.errors import UnsafeArchive

T = TypeVar("T")

RESAVE = "save the model again with torch.export.save of torch 2.11 or newer"
_INT64 = 2**63


def shorten(value: object, limit: int = 80) -> str:
    """A value of the file, quoted and cut, safe to stand in a message."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def words(text: str) -> frozenset[str]:
    """The words of an allow-list or a deny-list, kept as running text so that it can be read."""
    return frozenset(text.split())


def parse_json(content: bytes, where: str) -> Any:
    """Parses with the standard library only; nothing in the document is looked up, imported or called."""
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError:
        raise UnsafeArchive(f"{where}: nested too deeply; {RESAVE}") from None
    except ValueError as error:  # also bad UTF-8 and integers with thousands of digits
        raise UnsafeArchive(f"{where}: not valid JSON ({shorten(str(error))}); {RESAVE}") from None


def mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnsafeArchive(f"{where}: {shorten(value)} is not an object; {RESAVE}")
    return value


def mapping_of(value: Any, where: str, item: Callable[[Any, str], T]) -> dict[str, T]:
    return {key: item(entry, f"{where}[{shorten(key)}]") for key, entry in mapping(value, where).items()}


def sequence(value: Any, where: str, item: Callable[[Any, str], T]) -> list[T]:
    if not isinstance(value, list):
        raise UnsafeArchive(f"{where}: {shorten(value)} is not a list; {RESAVE}")
    return [item(entry, f"{where}[{i}]") for i, entry in enumerate(value)]


def string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UnsafeArchive(f"{where}: {shorten(value)} is not a string; {RESAVE}")
    return value


def boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UnsafeArchive(f"{where}: {shorten(value)} is not true or false; {RESAVE}")
    return value


def integer(value: Any, where: str) -> int:
    """A signed 64-bit integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise UnsafeArchive(f"{where}: {shorten(value)} is not an integer; {RESAVE}")
    if not -_INT64 <= value < _INT64:
        raise UnsafeArchive(f"{where}: {shorten(value)} does not fit into 64 bits; {RESAVE}")
    return value


def number(value: Any, where: str) -> float | int | str:
    """A float as torch writes it: infinities and NaN are strings."""
    if value in ("Infinity", "-Infinity", "NaN") and isinstance(value, str):
        return value
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise UnsafeArchive(f"{where}: {value} must be written as a string; {RESAVE}")
        return value
    return integer(value, where)


def union(value: Any, where: str) -> tuple[str, Any]:
    """torch writes a tagged union as an object with one key. Returns tag and content."""
    document = mapping(value, where)
    if len(document) != 1:
        raise UnsafeArchive(f"{where}: {len(document)} alternatives where one is expected; {RESAVE}")
    return next(iter(document.items()))


def field(document: dict[str, Any], name: str, where: str) -> Any:
    if name not in document:
        raise UnsafeArchive(f"{where}: {name!r} is missing; {RESAVE}")
    return document[name]

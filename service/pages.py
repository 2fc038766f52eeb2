"""Lists by keyset cursor: the next page starts after the last row seen, so it costs the same however far it lies."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Row, Select, Table, and_, or_

from service.refusals import BadCursor


@dataclass(frozen=True)
class Page:
    rows: Sequence[Row[Any]]
    next_cursor: str | None


def newest_first(
    connection: Connection, query: Select[Any], table: Table, *, limit: int, cursor: str | None = None
) -> Page:
    """A page of `query`, whose table has `created_at` and `id`. Raises BadCursor."""
    created, key = table.c.created_at, table.c.id
    if cursor is not None:
        at, last = _read(cursor)
        query = query.where(or_(created < at, and_(created == at, key < last)))
    rows = connection.execute(query.order_by(created.desc(), key.desc()).limit(limit + 1)).all()
    page = rows[:limit]
    return Page(page, _write(page[-1]) if len(rows) > limit else None)


def by_number(
    connection: Connection, query: Select[Any], column: Column[int], *, limit: int, cursor: str | None = None
) -> Page:
    """A page of `query`, highest number first; no two rows have the same. Raises BadCursor."""
    if cursor is not None:
        if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
            raise BadCursor(cursor)
        query = query.where(column < int(cursor))
    rows = connection.execute(query.order_by(column.desc()).limit(limit + 1)).all()
    page = rows[:limit]
    return Page(page, str(getattr(page[-1], column.key)) if len(rows) > limit else None)


def _write(row: Row[Any]) -> str:
    return base64.urlsafe_b64encode(f"{row.created_at!r} {row.id}".encode()).decode()


def _read(cursor: str) -> tuple[float, str]:
    try:
        at, _, last = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        return float(at), last
    except (binascii.Error, ValueError) as error:
        raise BadCursor(cursor) from error

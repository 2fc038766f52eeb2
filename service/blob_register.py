"""The register of blobs: one row per blob, noted before its bytes are written, removed together with them.

Why nothing that is needed is collected. A blob goes when no row has referred to it for `keep_s`, in three steps:

1. Whoever is about to write a blob notes it first, in a transaction of its own. That clears `unused_since`.
2. Marking sets `unused_since` of rows to which nothing refers, and clears it where something does.
3. Sweeping deletes one row in one transaction, on the condition that it has been unused for `keep_s` and nothing
   refers to it, and the bytes while this transaction still holds the row.

A writer that notes the blob before step 3 makes its condition false, and has `keep_s` to commit the row that refers to
it (an upload is given `upload_s`; settings demand the larger of both). One that comes during step 3 waits for the
row's lock (on SQLite for the write lock), and writes its bytes after the old ones are gone. Bytes without a row, left
by a release without this table or by a crash, are found by listing the store and get a row that is unused from then.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, delete, exists, func, or_, select, update

from service.blobs import Blob, Blobs, digest_of
from service.database import Database, db_now, insert_if_new
from service.tables import artifacts, blobs, datasets, models


def take_in(database: Database, store: Blobs, path: Path, sha256: str | None = None, *, move: bool = False) -> Blob:
    """Notes a file, then puts it into the store. move: it is the store's afterwards."""
    blob = digest_of(path) if sha256 is None else Blob(sha256, path.stat().st_size)
    note(database, blob)
    return store.adopt(path, blob.sha256) if move else store.add(path, blob.sha256)


def note(database: Database, blob: Blob) -> None:
    """Before the bytes are written."""
    row = {"sha256": blob.sha256, "bytes": blob.bytes, "added_at": db_now(), "unused_since": None}
    with database.write() as connection:
        if not insert_if_new(connection, blobs, row):
            connection.execute(update(blobs).where(blobs.c.sha256 == blob.sha256).values(unused_since=None))


def _referred() -> ColumnElement[bool]:
    key = blobs.c.sha256
    columns = (models.c.blob, datasets.c.sha256, artifacts.c.sha256)
    return or_(*(exists(select(1).where(column == key)) for column in columns))


@dataclass(frozen=True)
class Swept:
    blobs: int
    bytes: int


class Collector:
    """keep_s: how long a blob is kept after the last row that referred to it is gone."""

    def __init__(self, database: Database, store: Blobs, keep_s: float) -> None:
        self._database, self._store, self._keep_s = database, store, keep_s

    def find_strays(self, prefix: str) -> int:
        """Notes bytes of the store that have no row. prefix: two hex digits. How many were noted."""
        found = self._store.listed(prefix)
        with self._database.read() as connection:
            known = set(connection.scalars(select(blobs.c.sha256).where(blobs.c.sha256.startswith(prefix))))
        strays = [blob for blob in found if blob.sha256 not in known]
        for blob in strays:
            row = {"sha256": blob.sha256, "bytes": blob.bytes, "added_at": db_now(), "unused_since": db_now()}
            with self._database.write() as connection:
                insert_if_new(connection, blobs, row)
        return len(strays)

    def mark(self) -> None:
        with self._database.write() as connection:
            connection.execute(
                update(blobs).where(blobs.c.unused_since.is_(None), ~_referred()).values(unused_since=db_now())
            )
            connection.execute(
                update(blobs).where(blobs.c.unused_since.is_not(None), _referred()).values(unused_since=None)
            )

    def due(self) -> Swept:
        """What a sweep without an end would remove now."""
        query = select(func.count(), func.coalesce(func.sum(blobs.c.bytes), 0)).where(self._unused(), ~_referred())
        with self._database.read() as connection:
            count, size = connection.execute(query).one()
        return Swept(int(count), int(size))

    def sweep(self, most: int) -> Swept:
        """Removes at most so many blobs, those that are unused for longest first."""
        query = select(blobs.c.sha256).where(self._unused(), ~_referred()).order_by(blobs.c.unused_since).limit(most)
        with self._database.read() as connection:
            candidates = list(connection.scalars(query))
        sizes = [size for sha256 in candidates if (size := self._remove(sha256)) is not None]
        return Swept(len(sizes), sum(sizes))

    def _remove(self, sha256: str) -> int | None:
        statement = delete(blobs).where(blobs.c.sha256 == sha256, self._unused(), ~_referred())
        with self._database.write() as connection:
            size = connection.execute(statement.returning(blobs.c.bytes)).scalar_one_or_none()
            if size is not None:
                self._store.remove(sha256)
        return size

    def _unused(self) -> ColumnElement[bool]:
        return blobs.c.unused_since < db_now() - self._keep_s

"""Rows of uploaded models and datasets. In a project the same bytes are one row, whatever they are called.

Each upload makes these bytes the latest version of the name that it gives (`service.versions`).

Another project that uploads them too gets a row and an id of its own, and its upload is read like any other: nothing
tells it that the bytes were here before. Only the file in the blob store is shared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, insert, select

from compressors.descriptions import DatasetDescription, ModelDescription
from search.spec import JobSpec
from service.database import Database, db_now
from service.idempotency import Once, done_before, repeated
from service.limits import Limits
from service.pages import Page, by_number, newest_first
from service.projects import lock_project
from service.refusals import Gone, Unknown
from service.tables import DEFAULT_PROJECT, datasets, models
from service.versions import Missing, Resolved, Version, newest_of, note_upload, resolve, versions_table


@dataclass(frozen=True, kw_only=True)
class StoredModel:
    """bytes, sha256: of the upload. blob: sha256 of the program that passed intake."""

    id: str
    name: str
    sha256: str
    bytes: int
    blob: str
    description: ModelDescription
    created_at: float

    @classmethod
    def of(cls, row: Row[Any]) -> StoredModel:
        return cls(
            id=row.id,
            name=row.name,
            sha256=row.sha256,
            bytes=row.bytes,
            blob=row.blob,
            description=ModelDescription.from_json(row.description),
            created_at=row.created_at,
        )


@dataclass(frozen=True, kw_only=True)
class StoredDataset:
    id: str
    name: str
    sha256: str
    bytes: int
    description: DatasetDescription
    created_at: float

    @classmethod
    def of(cls, row: Row[Any]) -> StoredDataset:
        return cls(
            id=row.id,
            name=row.name,
            sha256=row.sha256,
            bytes=row.bytes,
            description=DatasetDescription.from_json(row.description),
            created_at=row.created_at,
        )


def identifier(prefix: str, project_id: str, sha256: str) -> str:
    """The id of an upload: 96 bits of its content's address, in other projects than the default one of both."""
    if project_id != DEFAULT_PROJECT:
        sha256 = hashlib.sha256(f"{project_id}\n{sha256}".encode()).hexdigest()
    return f"{prefix}{sha256[:24]}"


class Catalogue:
    """Of one project."""

    def __init__(self, database: Database, project_id: str, limits: Limits) -> None:
        self._database = database
        self._project_id = project_id
        self._limits = limits

    def model(self, model_id: str) -> StoredModel:
        """Raises Unknown."""
        with self._database.read() as connection:
            return StoredModel.of(find_input(connection, models, self._project_id, model_id))

    def dataset(self, dataset_id: str) -> StoredDataset:
        """Raises Unknown."""
        with self._database.read() as connection:
            return StoredDataset.of(find_input(connection, datasets, self._project_id, dataset_id))

    def page(self, table: Table, *, limit: int, cursor: str | None) -> Page:
        """Rows of `models` or `datasets`, newest first. Raises BadCursor."""
        query = select(table).where(table.c.project_id == self._project_id)
        with self._database.read() as connection:
            return newest_first(connection, query, table, limit=limit, cursor=cursor)

    def versions(self, table: Table, ids: Iterable[str]) -> dict[str, Version]:
        """id -> the last version that it was uploaded as."""
        with self._database.read() as connection:
            return newest_of(connection, table, ids)

    def versions_page(
        self, table: Table, name: str, *, limit: int, cursor: str | None
    ) -> tuple[list[tuple[Row[Any], Version]], str | None]:
        """Versions of one name that are still there, newest first, and the next page's cursor. Raises BadCursor."""
        kept = versions_table(table)
        query = select(kept).where(kept.c.project_id == self._project_id, kept.c.name == name)
        query = query.where(kept.c.object_id.is_not(None))
        with self._database.read() as connection:
            page = by_number(connection, query, kept.c.number, limit=limit, cursor=cursor)
            found = [Version.of(row) for row in page.rows]
            ids = {version.id for version in found}
            objects = {row.id: row for row in connection.execute(select(table).where(table.c.id.in_(ids)))}
        return [(objects[v.id], v) for v in found if v.id in objects], page.next_cursor

    def resolve(self, spec: JobSpec) -> Resolved | list[Missing]:
        with self._database.read() as connection:
            return resolve(connection, self._project_id, spec)

    def known(self, table: Table, name: str, sha256: str, size: int, once: Once | None) -> Row[Any] | None:
        """The row of these bytes, now the latest version of that name; None if there is room for them.

        Asked before an upload is read, which costs more than all of this. Raises LimitReached, KeyReused.
        """
        with self._database.write() as connection:
            row = self._row(connection, table, sha256)
            if row is not None:
                lock_project(connection, self._project_id)
                if done_before(connection, once, row.id) is None:
                    note_upload(connection, table, self._project_id, name, row.id)
            else:
                self._limits.check_upload(connection, self._project_id, table, size)
            return row

    def add_model(
        self,
        *,
        name: str,
        sha256: str,
        size: int,
        blob: str,
        description: ModelDescription,
        once: Once | None = None,
    ) -> tuple[StoredModel, bool]:
        """The row of these bytes and whether it is new. Raises LimitReached, KeyReused."""
        row = {"name": name, "sha256": sha256, "bytes": size, "blob": blob, "description": description.to_json()}
        stored, new = self._add(models, "m", row, once)
        return StoredModel.of(stored), new

    def add_dataset(
        self, *, name: str, sha256: str, size: int, description: DatasetDescription, once: Once | None = None
    ) -> tuple[StoredDataset, bool]:
        """Like add_model."""
        row = {"name": name, "sha256": sha256, "bytes": size, "description": description.to_json()}
        stored, new = self._add(datasets, "d", row, once)
        return StoredDataset.of(stored), new

    def _row(self, connection: Connection, table: Table, sha256: str) -> Row[Any] | None:
        query = select(table).where(table.c.project_id == self._project_id, table.c.sha256 == sha256)
        return connection.execute(query).one_or_none()

    def _add(self, table: Table, prefix: str, row: dict[str, Any], once: Once | None) -> tuple[Row[Any], bool]:
        key = identifier(prefix, self._project_id, row["sha256"])
        with self._database.write() as connection:
            lock_project(connection, self._project_id)
            done = done_before(connection, once, key)
            found = self._row(connection, table, row["sha256"])
            if found is not None:
                if done is None:
                    note_upload(connection, table, self._project_id, row["name"], key)
                return found, False
            if done is not None:
                with repeated():
                    raise _unknown(table, done)
            self._limits.check_upload(connection, self._project_id, table, row["bytes"])
            statement = insert(table).values(id=key, project_id=self._project_id, created_at=db_now(), **row)
            made = connection.execute(statement.returning(table)).one()
            note_upload(connection, table, self._project_id, row["name"], key)
            return made, True


def find_input(connection: Connection, table: Table, project_id: str, identifier: str) -> Row[Any]:
    """The row of a model or dataset. Raises Unknown."""
    query = select(table).where(table.c.id == identifier, table.c.project_id == project_id)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise _unknown(table, identifier)
    return row


def hold_inputs(connection: Connection, project_id: str, spec: JobSpec) -> None:
    """Until the transaction ends, nobody deletes what the job needs. Raises Gone for what is not there."""
    needed = dict.fromkeys((spec.model, *spec.models.values()))
    wanted = [*((models, key) for key in needed), *((datasets, name) for name in dataset_ids(spec))]
    for table, key in wanted:
        query = select(table.c.id).where(table.c.id == key, table.c.project_id == project_id)
        if connection.execute(query.with_for_update(read=True)).one_or_none() is None:
            raise Gone(f"{_kind(table)} {key} was deleted at the same moment; choose another")


def dataset_ids(spec: JobSpec) -> list[str]:
    data = spec.data
    return sorted({name for name in (data.train, data.validation, data.test) if name is not None})


def _unknown(table: Table, identifier: str) -> Unknown:
    return Unknown(_kind(table), identifier)


def _kind(table: Table) -> str:
    return table.name.removesuffix("s")

"""Rows of uploaded models and datasets. The same bytes are one row, whatever they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Table, insert, select
from sqlalchemy.exc import IntegrityError

from compressors.descriptions import DatasetDescription, ModelDescription
from service.database import Database, db_now
from service.tables import datasets, models


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


@dataclass(frozen=True, kw_only=True)
class StoredDataset:
    id: str
    name: str
    sha256: str
    bytes: int
    description: DatasetDescription
    created_at: float


def identifier(prefix: str, sha256: str) -> str:
    """The id of an upload: 96 bits of its content's address."""
    return f"{prefix}{sha256[:24]}"


class Catalogue:
    def __init__(self, database: Database) -> None:
        self._database = database

    def model(self, model_id: str) -> StoredModel | None:
        with self._database.read() as connection:
            return find_model(connection, model_id)

    def dataset(self, dataset_id: str) -> StoredDataset | None:
        with self._database.read() as connection:
            return find_dataset(connection, dataset_id)

    def models(self, limit: int) -> list[StoredModel]:
        """Newest first."""
        return [_model(row) for row in self._newest(models, limit)]

    def datasets(self, limit: int) -> list[StoredDataset]:
        return [_dataset(row) for row in self._newest(datasets, limit)]

    def add_model(
        self, *, name: str, sha256: str, size: int, blob: str, description: ModelDescription
    ) -> tuple[StoredModel, bool]:
        """The row of these bytes and whether it is new."""
        row = {"name": name, "sha256": sha256, "bytes": size, "blob": blob, "description": description.to_json()}
        stored, new = self._add(models, "m", row)
        return _model(stored), new

    def add_dataset(
        self, *, name: str, sha256: str, size: int, description: DatasetDescription
    ) -> tuple[StoredDataset, bool]:
        row = {"name": name, "sha256": sha256, "bytes": size, "description": description.to_json()}
        stored, new = self._add(datasets, "d", row)
        return _dataset(stored), new

    def _newest(self, table: Table, limit: int) -> list[Row[Any]]:
        query = select(table).order_by(table.c.created_at.desc(), table.c.id).limit(limit)
        with self._database.read() as connection:
            return list(connection.execute(query))

    def _add(self, table: Table, prefix: str, row: dict[str, Any]) -> tuple[Row[Any], bool]:
        key = identifier(prefix, row["sha256"])
        known = select(table).where(table.c.id == key)
        try:
            with self._database.write() as connection:
                found = connection.execute(known).one_or_none()
                if found is not None:
                    return found, False
                statement = insert(table).values(id=key, created_at=db_now(), **row).returning(table)
                return connection.execute(statement).one(), True
        except IntegrityError:  # PostgreSQL: the same upload, committed by another request a moment ago
            with self._database.read() as connection:
                return connection.execute(known).one(), False


def find_model(connection: Connection, model_id: str) -> StoredModel | None:
    row = connection.execute(select(models).where(models.c.id == model_id)).one_or_none()
    return None if row is None else _model(row)


def find_dataset(connection: Connection, dataset_id: str) -> StoredDataset | None:
    row = connection.execute(select(datasets).where(datasets.c.id == dataset_id)).one_or_none()
    return None if row is None else _dataset(row)


def _model(row: Row[Any]) -> StoredModel:
    return StoredModel(
        id=row.id,
        name=row.name,
        sha256=row.sha256,
        bytes=row.bytes,
        blob=row.blob,
        description=ModelDescription.from_json(row.description),
        created_at=row.created_at,
    )


def _dataset(row: Row[Any]) -> StoredDataset:
    return StoredDataset(
        id=row.id,
        name=row.name,
        sha256=row.sha256,
        bytes=row.bytes,
        description=DatasetDescription.from_json(row.description),
        created_at=row.created_at,
    )

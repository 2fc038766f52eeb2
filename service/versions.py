"""Versions of models and datasets by name, and what `name@latest` in a job stands for.

Each upload under a name is its next version, from 1 on. The bytes that are the latest version already make no new one;
older bytes that are uploaded again do, so that going back to them is an upload like any other. Numbers are never given
twice: the version of a deleted model stays behind, without it, and the newest that is still there is the latest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import Connection, Row, Table, func, insert, select

from search.spec import JobSpec
from service.database import db_now
from service.references import name_in
from service.tables import dataset_versions, datasets, model_versions, models

ROLES = ("train", "validation", "test")
_VERSIONS = {"models": model_versions, "datasets": dataset_versions}


@dataclass(frozen=True, kw_only=True)
class Version:
    """id: of the model or dataset. uploaded_at: seconds since the epoch, of the upload that made this version."""

    name: str
    number: int
    id: str
    uploaded_at: float

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        return cls(name=row.name, number=row.number, id=row.object_id, uploaded_at=row.created_at)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.number, "id": self.id, "uploaded_at": self.uploaded_at}


@dataclass(frozen=True)
class Resolved:
    """spec: with ids only. names: field -> Version as JSON, of each field that gave a name."""

    spec: JobSpec
    names: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Missing:
    """A field whose name no model or dataset of the project has (any more)."""

    field: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"no {self.kind} of this project is called {self.name!r}; upload one with POST /v1/{self.kind}s"


def versions_table(table: Table) -> Table:
    """table: models or datasets."""
    return _VERSIONS[table.name]


def note_upload(connection: Connection, table: Table, project_id: str, name: str, object_id: str) -> None:
    """The caller's transaction holds the project's row."""
    kept = versions_table(table)
    mine = kept.c.project_id == project_id, kept.c.name == name
    found = latest(connection, table, project_id, name)
    if found is not None and found.id == object_id:
        return
    number = connection.execute(select(func.coalesce(func.max(kept.c.number), 0) + 1).where(*mine)).scalar_one()
    values = {"project_id": project_id, "name": name, "number": number, "object_id": object_id}
    connection.execute(insert(kept).values(**values, created_at=db_now()))


def latest(connection: Connection, table: Table, project_id: str, name: str) -> Version | None:
    kept = versions_table(table)
    mine = kept.c.project_id == project_id, kept.c.name == name, kept.c.object_id.is_not(None)
    row = connection.execute(select(kept).where(*mine).order_by(kept.c.number.desc()).limit(1)).one_or_none()
    return None if row is None else Version.of(row)


def newest_of(connection: Connection, table: Table, ids: Iterable[str]) -> dict[str, Version]:
    """id -> the last version that it was uploaded as, under any name."""
    kept = versions_table(table)
    query = select(kept).where(kept.c.object_id.in_(list(ids))).order_by(kept.c.created_at, kept.c.number)
    return {row.object_id: Version.of(row) for row in connection.execute(query)}


def references(spec: JobSpec) -> Iterator[tuple[str, Table, str]]:
    """(field, table, id or name@latest) of all that a job is made from."""
    yield "model", models, spec.model
    for name, reference in spec.models.items():
        yield f"models.{name}", models, reference
    for role in ROLES:
        reference = getattr(spec.data, role)
        if reference is not None:
            yield f"data.{role}", datasets, reference


def resolve(connection: Connection, project_id: str, spec: JobSpec) -> Resolved | list[Missing]:
    """Puts the id of the latest version in the place of each name; the fields at fault if there is none."""
    names: dict[str, dict[str, Any]] = {}
    missing = []
    for field, table, reference in references(spec):
        name = name_in(reference)
        if name is None:
            continue
        version = latest(connection, table, project_id, name)
        if version is None:
            missing.append(Missing(field, table.name.removesuffix("s"), name))
        else:
            names[field] = version.to_json()
    return missing or Resolved(_with_ids(spec, {field: v["id"] for field, v in names.items()}), names)


def _with_ids(spec: JobSpec, ids: dict[str, str]) -> JobSpec:
    further = {name: ids.get(f"models.{name}", reference) for name, reference in spec.models.items()}
    data = {role: ids[f"data.{role}"] for role in ROLES if f"data.{role}" in ids}
    changes = {"model": ids.get("model", spec.model), "models": further, "data": spec.data.model_copy(update=data)}
    return spec.model_copy(update=changes)

"""Rows of projects. A project is a tenant: it owns models, datasets, jobs, schedules and tokens, and sees no others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, func, select

from service.database import Database, db_now, insert_if_new
from service.idempotency import Once, done_before, repeated
from service.pages import Page, newest_first
from service.refusals import InUse, Taken, Unknown, WrongState
from service.tables import DEFAULT_PROJECT, datasets, jobs, models, projects, schedules

_OWNED: Mapping[str, Table] = {"model": models, "dataset": datasets, "schedule": schedules, "job": jobs}


class Projects:
    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, project_id: str, *, name: str, once: Once | None) -> Row[Any]:
        """Raises Taken."""
        with self._database.write() as connection:
            known = done_before(connection, once, project_id)
            if known is not None:
                with repeated():
                    return find_project(connection, known)
            if not insert_if_new(connection, projects, {"id": project_id, "name": name, "created_at": db_now()}):
                raise Taken(f"project {project_id!r} exists already; take another id")
            return find_project(connection, project_id)

    def get(self, project_id: str) -> Row[Any]:
        """Raises Unknown."""
        with self._database.read() as connection:
            return find_project(connection, project_id)

    def page(self, *, limit: int, cursor: str | None) -> Page:
        """Newest first. Raises BadCursor."""
        with self._database.read() as connection:
            return newest_first(connection, select(projects), projects, limit=limit, cursor=cursor)

    def delete(self, project_id: str) -> None:
        """An empty project with its tokens. Raises Unknown, InUse; WrongState for the default project."""
        if project_id == DEFAULT_PROJECT:
            raise WrongState("the default project cannot be deleted: the server's own token belongs to it")
        with self._database.write() as connection:
            connection.execute(select(projects).where(projects.c.id == project_id).with_for_update())
            find_project(connection, project_id)
            users = [
                (kind, key)
                for kind, table in _OWNED.items()
                for key in connection.scalars(select(table.c.id).where(table.c.project_id == project_id).limit(6))
            ]
            if users:
                raise InUse(f"project {project_id!r}", users, "delete them first, with a token of the project")
            connection.execute(delete(projects).where(projects.c.id == project_id))


def find_project(connection: Connection, project_id: str) -> Row[Any]:
    """Raises Unknown."""
    row = connection.execute(select(projects).where(projects.c.id == project_id)).one_or_none()
    if row is None:
        raise Unknown("project", project_id)
    return row


def lock_project(connection: Connection, project_id: str) -> None:
    """Until the transaction ends, nobody else counts or adds to what the project owns."""
    connection.execute(select(projects.c.id).where(projects.c.id == project_id).with_for_update(key_share=True))


def stored_bytes(connection: Connection, project_id: str) -> int:
    """Of all uploads."""
    sums = [
        select(func.coalesce(func.sum(table.c.bytes), 0)).where(table.c.project_id == project_id).scalar_subquery()
        for table in (models, datasets)
    ]
    return int(connection.execute(select(sums[0] + sums[1])).scalar_one())

"""Deletes models, datasets and jobs. What something unfinished still needs stays, and the refusal names what needs it.

Files stay where they are: another row may share them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, delete, select

from service.catalogue import find_input
from service.database import Database
from service.jobs import TERMINAL, find_job
from service.references import LATEST
from service.refusals import InUse, WrongState
from service.tables import datasets, jobs, models, schedules
from service.versions import versions_table

_REMEDY = "cancel the jobs and delete the schedules first"


class Removal:
    """In one project."""

    def __init__(self, database: Database, project_id: str) -> None:
        self._database = database
        self._project_id = project_id

    def model(self, model_id: str) -> None:
        """Finished jobs keep their results. Raises Unknown, InUse."""
        self._delete_input(models, model_id)

    def dataset(self, dataset_id: str) -> None:
        """Finished jobs keep their results. Raises Unknown, InUse."""
        self._delete_input(datasets, dataset_id)

    def job(self, job_id: str) -> None:
        """With its trials, log lines and artifacts. Raises Unknown; WrongState if it has not ended."""
        with self._database.write() as connection:
            state = find_job(connection, self._project_id, job_id, lock=True).state
            if state not in TERMINAL:
                raise WrongState(f"the job is {state}; cancel it, and delete it once it has ended")
            connection.execute(delete(jobs).where(jobs.c.id == job_id))

    def _delete_input(self, table: Table, key: str) -> None:
        with self._database.write() as connection:
            # Waits for a job that is being submitted with it (`hold_inputs`), and makes later ones wait for us.
            connection.execute(select(table.c.id).where(table.c.id == key).with_for_update())
            find_input(connection, table, self._project_id, key)
            users = self._users(connection, table, key)
            if users:
                raise InUse(f"{table.name.removesuffix('s')} {key}", users, _REMEDY)
            connection.execute(delete(table).where(table.c.id == key))

    def _users(self, connection: Connection, table: Table, key: str) -> list[tuple[str, str]]:
        unfinished = select(jobs.c.id, jobs.c.spec).where(
            jobs.c.project_id == self._project_id, jobs.c.state.not_in(TERMINAL)
        )
        timed = select(schedules.c.id, schedules.c.job).where(schedules.c.project_id == self._project_id)
        wanted = {key, *(f"{name}{LATEST}" for name in self._only_version_of(connection, table, key))}
        return [
            (kind, str(identifier))
            for kind, query in (("job", unfinished), ("schedule", timed))
            for identifier, spec in connection.execute(query)
            if wanted & _named(table, spec)
        ]

    def _only_version_of(self, connection: Connection, table: Table, key: str) -> list[str]:
        """Names under which nothing would be left. Where older versions are, the newest of them becomes the latest."""
        mine, others = versions_table(table), versions_table(table).alias("others")
        other = select(others.c.number).where(
            others.c.project_id == mine.c.project_id, others.c.name == mine.c.name, others.c.object_id != key
        )
        query = select(mine.c.name).where(mine.c.object_id == key, ~other.exists()).distinct()
        return list(connection.scalars(query))


def _named(table: Table, spec: Mapping[str, Any]) -> set[str | None]:
    if table is models:
        return {spec["model"], *spec.get("models", {}).values()}
    return {spec["data"].get(role) for role in ("train", "validation", "test")}

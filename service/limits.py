"""What one project may take of the server. All limits are settings; a refusal names setting, value and remedy.

Counts are taken in the transaction that adds, with the project's row locked, so that requests at the same moment do
not pass a limit together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Table, func, select

from service.projects import stored_bytes
from service.refusals import LimitReached
from service.settings import Settings
from service.tables import jobs, models, schedules, webhooks

_QUEUE_RETRY_S = 60
_UPLOAD_RETRY_S = 5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """None: no limit."""

    models: int
    datasets: int
    stored_bytes: int | None
    schedules: int
    webhooks: int
    queued_jobs: int
    running_jobs: int | None

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            models=settings.max_models,
            datasets=settings.max_datasets,
            stored_bytes=settings.max_stored_bytes,
            schedules=settings.max_schedules,
            webhooks=settings.max_webhooks,
            queued_jobs=settings.max_queued_jobs,
            running_jobs=settings.max_running_jobs,
        )

    def check_upload(self, connection: Connection, project_id: str, table: Table, size: int) -> None:
        """Room for one more model or dataset? Raises LimitReached."""
        limit = self.models if table is models else self.datasets
        _check_count(connection, project_id, table, limit, f"delete {table.name} that are no longer used")
        if self.stored_bytes is None:
            return
        total = stored_bytes(connection, project_id) + size
        if total > self.stored_bytes:
            remedy = "delete models or datasets that are no longer used, or have the limit raised"
            raise LimitReached("BANTAM_MAX_STORED_BYTES", self.stored_bytes, total, "full", remedy)

    def check_schedule(self, connection: Connection, project_id: str) -> None:
        """Room for one more schedule? Raises LimitReached."""
        _check_count(connection, project_id, schedules, self.schedules, "delete schedules that are no longer used")

    def check_webhook(self, connection: Connection, project_id: str) -> None:
        """Room for one more webhook? Raises LimitReached."""
        _check_count(connection, project_id, webhooks, self.webhooks, "delete webhooks that are no longer used")

    def check_queue(self, connection: Connection, project_id: str) -> None:
        """Room for one more job that waits? Raises LimitReached."""
        waiting = jobs.c.project_id == project_id, jobs.c.state == "queued"
        count = connection.execute(select(func.count()).select_from(jobs).where(*waiting)).scalar_one() + 1
        if count > self.queued_jobs:
            remedy = "wait until a job has started, or cancel one that is no longer wanted"
            raise LimitReached("BANTAM_MAX_QUEUED_JOBS", self.queued_jobs, count, "wait", remedy, _QUEUE_RETRY_S)


def _check_count(connection: Connection, project_id: str, table: Table, limit: int, remedy: str) -> None:
    query = select(func.count()).select_from(table).where(table.c.project_id == project_id)
    count = connection.execute(query).scalar_one() + 1
    if count > limit:
        setting = f"BANTAM_MAX_{table.name.upper()}"
        raise LimitReached(setting, limit, count, "full", f"{remedy}, or have the limit raised")


class UploadSlots:
    """How many uploads a project has under way in this process. Used by one event loop, so it needs no lock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()

    @asynccontextmanager
    async def one(self, project_id: str) -> AsyncIterator[None]:
        """Raises LimitReached."""
        taken = self._taken[project_id] + 1
        if taken > self._limit:
            remedy = "wait until one of them has arrived"
            raise LimitReached("BANTAM_MAX_UPLOADS", self._limit, taken, "wait", remedy, _UPLOAD_RETRY_S)
        self._taken[project_id] = taken
        try:
            yield
        finally:
            self._taken[project_id] -= 1
            if not self._taken[project_id]:
                del self._taken[project_id]

"""Rows of webhooks, and what became of the events for them. Sending is done by `service.webhook_delivery`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from service.database import Database, db_now
from service.idempotency import Once, done_before, repeated
from service.limits import Limits
from service.outbox import EVENTS, Event, new_delivery_id, note_test
from service.pages import Page, newest_first
from service.projects import lock_project
from service.refusals import Unknown, WrongState
from service.tables import schedules, webhook_deliveries, webhooks
from service.webhook_signature import new_secret


class Webhooks:
    """Of one project."""

    def __init__(self, database: Database, project_id: str, limits: Limits) -> None:
        self._database = database
        self._project_id = project_id
        self._limits = limits

    def create(
        self, *, url: str, events: Sequence[Event], schedule: str | None, enabled: bool, once: Once | None
    ) -> tuple[Row[Any], str | None]:
        """The row and its secret; none if `once` was used before: it is shown once.

        Raises Unknown (of the schedule), LimitReached, KeyReused, Gone.
        """
        webhook_id, secret = f"w{secrets.token_hex(8)}", new_secret()
        with self._database.write() as connection:
            lock_project(connection, self._project_id)
            done = done_before(connection, once, webhook_id)
            if done is not None:
                with repeated():
                    return self._find(connection, done), None
            self._limits.check_webhook(connection, self._project_id)
            if schedule is not None:
                self._check_schedule(connection, schedule)
            statement = insert(webhooks).values(
                id=webhook_id,
                project_id=self._project_id,
                schedule_id=schedule,
                url=url,
                events=_words(events),
                secret=secret,
                enabled=enabled,
                created_at=db_now(),
            )
            return connection.execute(statement.returning(webhooks)).one(), secret

    def get(self, webhook_id: str) -> Row[Any]:
        """Raises Unknown."""
        with self._database.read() as connection:
            return self._find(connection, webhook_id)

    def page(self, *, limit: int, cursor: str | None) -> Page:
        """Newest first. Raises BadCursor."""
        query = select(webhooks).where(webhooks.c.project_id == self._project_id)
        with self._database.read() as connection:
            return newest_first(connection, query, webhooks, limit=limit, cursor=cursor)

    def change(self, webhook_id: str, fields: Mapping[str, Any]) -> Row[Any]:
        """fields: of url, events, enabled. Raises Unknown."""
        values = {**fields, **({"events": _words(fields["events"])} if "events" in fields else {})}
        with self._database.write() as connection:
            self._find(connection, webhook_id)
            if values:
                connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(**values))
            return self._find(connection, webhook_id)

    def delete(self, webhook_id: str) -> None:
        """With all events for it, sent or not. Raises Unknown."""
        is_it = webhooks.c.id == webhook_id, webhooks.c.project_id == self._project_id
        with self._database.write() as connection:
            if connection.execute(delete(webhooks).where(*is_it)).rowcount == 0:
                raise Unknown("webhook", webhook_id)

    def test(self, webhook_id: str, *, once: Once | None) -> Row[Any]:
        """An event of type `test`, to be delivered like any other. Raises Unknown, WrongState, KeyReused, Gone."""
        delivery_id = new_delivery_id()
        with self._database.write() as connection:
            webhook = self._find(connection, webhook_id)
            done = done_before(connection, once, delivery_id)
            if done is None:
                if not webhook.enabled:
                    raise WrongState("the webhook is disabled, nothing is sent to it; enable it first")
                note_test(connection, webhook, delivery_id)
            query = select(webhook_deliveries).where(webhook_deliveries.c.id == (done or delivery_id))
            row = connection.execute(query).one_or_none()
            if row is None:
                with repeated():
                    raise Unknown("delivery", done, f"GET /v1/webhooks/{webhook_id}/deliveries lists all")
            return row

    def deliveries(self, webhook_id: str, *, state: str | None, limit: int, cursor: str | None) -> Page:
        """Newest first. Raises Unknown, BadCursor."""
        query = select(webhook_deliveries).where(webhook_deliveries.c.webhook_id == webhook_id)
        if state is not None:
            query = query.where(webhook_deliveries.c.state == state)
        with self._database.read() as connection:
            self._find(connection, webhook_id)
            return newest_first(connection, query, webhook_deliveries, limit=limit, cursor=cursor)

    def _find(self, connection: Connection, webhook_id: str) -> Row[Any]:
        query = select(webhooks).where(webhooks.c.id == webhook_id, webhooks.c.project_id == self._project_id)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise Unknown("webhook", webhook_id)
        return row

    def _check_schedule(self, connection: Connection, schedule_id: str) -> None:
        query = select(schedules.c.id).where(schedules.c.id == schedule_id, schedules.c.project_id == self._project_id)
        if connection.execute(query).one_or_none() is None:
            raise Unknown("schedule", schedule_id)


def _words(events: Sequence[Event]) -> str:
    return " ".join(event for event in EVENTS if event in events)

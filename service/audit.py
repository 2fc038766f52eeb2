"""Who did what: one row for each changing request of a known token, done or refused, written before it is answered."""

from __future__ import annotations

import logging
from typing import Any

from anyio import to_thread
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.database import Database, db_now
from service.pages import Page, by_number
from service.requests import route_pattern
from service.tables import audit_log
from service.tokens import Principal

logger = logging.getLogger("bantam.audit")
_READING = ("GET", "HEAD", "OPTIONS")
_LONGEST_OBJECT = 300


class Audit:
    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, row: dict[str, Any]) -> None:
        with self._database.write() as connection:
            connection.execute(insert(audit_log).values(at=db_now(), **row))

    def page(
        self, *, project_id: str | None, token_id: str | None, path: str | None, limit: int, cursor: str | None
    ) -> Page:
        """Newest first. project_id, token_id, path of the object: None for all. Raises BadCursor."""
        wanted = {"project_id": project_id, "token_id": token_id, "object": path}
        query = select(audit_log)
        query = query.where(*(audit_log.c[name] == value for name, value in wanted.items() if value is not None))
        with self._database.read() as connection:
            return by_number(connection, query, audit_log.c.id, limit=limit, cursor=cursor)

    def forget(self, older_than_s: float) -> int:
        """How many rows were removed."""
        with self._database.write() as connection:
            return connection.execute(delete(audit_log).where(audit_log.c.at < db_now() - older_than_s)).rowcount


class AuditTrail:
    """ASGI middleware behind TokenGuard. A request without a valid token leaves a log line, no row."""

    def __init__(self, app: ASGIApp, audit: Audit) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _READING:
            await self._app(scope, receive, send)
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                location = Headers(raw=message["headers"]).get("location")
                await self._note(scope, message["status"], location)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            await self._note(scope, 500, None)
            raise

    async def _note(self, scope: Scope, status: int, location: str | None) -> None:
        state = HTTPConnection(scope).state
        principal: Principal | None = getattr(state, "principal", None)
        if principal is None:
            return
        row = {
            "project_id": principal.project_id,
            "token_id": principal.token_id,
            "token_name": principal.name,
            "client": scope["client"][0][:100] if scope.get("client") else None,
            "method": scope["method"],
            "route": route_pattern(scope) if "route" in scope else "",
            "object": _storable(location or scope["path"]),
            "status": status,
            "request_id": state.request_id,
        }
        try:
            await to_thread.run_sync(self._audit.note, row)
        except SQLAlchemyError:
            # The work is done: an error now would only make its caller do it again. The log keeps what the table lacks.
            logger.exception("not in the audit log: %s", row)


def _storable(path: str) -> str:
    """Without what PostgreSQL cannot keep in text."""
    return path.replace("\0", "\ufffd").encode(errors="replace").decode()[:_LONGEST_OBJECT]

"""API tokens: `bantam_<id>_<secret>`. Only the sha256 of the secret is kept; the secret is shown once.

The secret has 256 random bits, so a plain hash is as good as a slow one: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import OperationalError

from service.database import Database, db_now
from service.idempotency import Once, done_before, repeated
from service.pages import Page, newest_first
from service.projects import find_project
from service.refusals import Unknown
from service.scopes import SCOPES, Scope, with_implied
from service.tables import DEFAULT_PROJECT, tokens

logger = logging.getLogger("bantam.api")
USE_NOTED_EVERY_S = 60
_FORM = re.compile(r"bantam_([0-9a-z]{1,40})_([A-Za-z0-9_-]{1,200})")


@dataclass(frozen=True)
class Principal:
    """Who makes a request: a token and what it may do, in its project."""

    token_id: str
    name: str
    project_id: str
    scopes: tuple[Scope, ...]
    expires_at: float | None = None

    @property
    def runs_installation(self) -> bool:
        """Admins of the default project look after all projects; admins of another one after theirs."""
        return "admin" in self.scopes and self.project_id == DEFAULT_PROJECT


def token_text(token_id: str, secret: str) -> str:
    return f"bantam_{token_id}_{secret}"


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def scopes_of(row: Row[Any]) -> tuple[Scope, ...]:
    return tuple(scope for scope in SCOPES if scope in row.scopes.split())


class Tokens:
    """project_id: whose tokens `page` and `revoke` see; None: all projects'."""

    def __init__(self, database: Database, project_id: str | None = None) -> None:
        self._database = database
        self._project_id = project_id

    def authenticate(self, text: str) -> Principal | None:
        """None for anything but a token that is known and has not run out. One indexed read."""
        form = _FORM.fullmatch(text)
        if form is None:
            return None
        token_id, secret = form.groups()
        query = select(
            tokens,
            (tokens.c.expires_at <= db_now()).label("is_over"),
            (tokens.c.last_used_at > db_now() - USE_NOTED_EVERY_S).label("is_noted"),
        ).where(tokens.c.id == token_id)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        # An unknown id costs the same comparison as a known one.
        right = secrets.compare_digest(digest(secret), "" if row is None else row.digest)
        if row is None or not right or row.is_over:
            return None
        if not row.is_noted:
            self._note_use(token_id)
        return Principal(row.id, row.name, row.project_id, scopes_of(row), row.expires_at)

    def _note_use(self, token_id: str) -> None:
        try:
            with self._database.write() as connection:
                connection.execute(update(tokens).where(tokens.c.id == token_id).values(last_used_at=db_now()))
        except OperationalError as error:  # no reason to refuse the request
            logger.warning("token %s: its use was not noted: %s", token_id, error)

    def create(
        self, project_id: str, *, name: str, scopes: Sequence[Scope], expires_in_s: float | None, once: Once | None
    ) -> tuple[Row[Any], str | None]:
        """The row and the token's text; no text if `once` was used before: it is shown once. Raises Unknown."""
        token_id, secret = f"t{secrets.token_hex(8)}", secrets.token_urlsafe(32)
        with self._database.write() as connection:
            find_project(connection, project_id)
            known = done_before(connection, once, token_id)
            if known is not None:
                with repeated():
                    return self._find(connection, known), None
            statement = insert(tokens).values(
                id=token_id,
                project_id=project_id,
                name=name,
                scopes=" ".join(with_implied(scopes)),
                digest=digest(secret),
                created_at=db_now(),
                expires_at=None if expires_in_s is None else db_now() + expires_in_s,
            )
            return connection.execute(statement.returning(tokens)).one(), token_text(token_id, secret)

    def page(self, *, limit: int, cursor: str | None) -> Page:
        """Newest first. Raises BadCursor."""
        query = select(tokens) if self._project_id is None else select(tokens).where(self._is_mine)
        with self._database.read() as connection:
            return newest_first(connection, query, tokens, limit=limit, cursor=cursor)

    def get(self, token_id: str) -> Row[Any]:
        """Raises Unknown."""
        with self._database.read() as connection:
            return self._find(connection, token_id)

    def revoke(self, token_id: str) -> None:
        """From the next request on it opens nothing. Raises Unknown."""
        statement = delete(tokens).where(tokens.c.id == token_id)
        if self._project_id is not None:
            statement = statement.where(self._is_mine)
        with self._database.write() as connection:
            if connection.execute(statement).rowcount == 0:
                raise Unknown("token", token_id)

    def _find(self, connection: Connection, token_id: str) -> Row[Any]:
        query = select(tokens).where(tokens.c.id == token_id)
        if self._project_id is not None:
            query = query.where(self._is_mine)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise Unknown("token", token_id)
        return row

    @property
    def _is_mine(self) -> Any:
        return tokens.c.project_id == self._project_id

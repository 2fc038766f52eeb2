"""Who makes a request: a bearer token, checked before anything of a request's body is read.

The first start writes a token to `<data-dir>/token`, readable by its owner. It is an admin of the default project, is
kept nowhere else and opens the service even when the table of tokens is lost. All others are rows (`service.tokens`).
The browser gets its token back as an HttpOnly, SameSite=Strict cookie (POST /v1/session), because an EventSource cannot
send headers. SameSite=Strict keeps other sites' requests without it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from anyio import to_thread
from sqlalchemy.exc import OperationalError
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from search import logs
from service.problems import Problem, database_away, problem_response
from service.scopes import METRICS_PATH, SCOPES, needed_scope
from service.tables import DEFAULT_PROJECT
from service.tokens import Principal, Tokens, digest, token_text

COOKIE = "bantam_token"
ROOT = Principal("root", "<data-dir>/token", DEFAULT_PROJECT, SCOPES)
TRUSTED_S = 2.0
_MOST_FOUND = 10_000
_MODE = 0o600


def ensure_token(path: Path) -> str:
    """The token in the file, written at the first call. Two processes that start at once get the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".token-")  # mkstemp makes it 0600
        with os.fdopen(handle, "w") as stream:
            stream.write(token_text(ROOT.token_id, secrets.token_urlsafe(32)) + "\n")
        try:
            os.link(name, path)  # fails if another process was faster: its token counts
        except FileExistsError:
            pass
        finally:
            os.unlink(name)
    token = path.read_text().strip()
    if not token:
        raise ValueError(f"{path}: empty; delete it, and the next start writes a new token")
    logs.hide(token)
    if path.stat().st_mode & 0o077:
        os.chmod(path, _MODE)
    return token


class Authenticator:
    """Knows the token of the data folder and all that are rows.

    A row that was found is believed for TRUSTED_S, so that polls do not read it each time. Whoever revokes tokens in
    this process calls `forget`; one that another process has revoked opens this one for TRUSTED_S at most. Tokens that
    open nothing are not remembered, and of the others only digests.
    """

    def __init__(self, root_token: str, tokens: Tokens, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = digest(root_token)
        self._tokens = tokens
        self._clock = clock
        self._found: dict[str, tuple[float, Principal]] = {}

    def known(self, text: str | None) -> Principal | None:
        """Without reading: the token of the data folder, and those found just before."""
        if text is None:
            return None
        given = digest(text)
        if secrets.compare_digest(given, self._root):
            return ROOT
        until, principal = self._found.get(given, (0.0, ROOT))
        return principal if self._clock() < until else None

    def __call__(self, text: str | None) -> Principal | None:
        """None for a token that opens nothing. Secrets are compared in constant time. Blocks; call it in a thread."""
        principal = self.known(text)
        if principal is not None or text is None:
            return principal
        found = self._found
        principal = self._tokens.authenticate(text)
        if principal is not None:
            if len(found) >= _MOST_FOUND:
                found.clear()
            left = float("inf") if principal.expires_at is None else principal.expires_at - time.time()
            found[digest(text)] = (self._clock() + min(TRUSTED_S, left), principal)
        return principal

    def forget(self) -> None:
        """A read under way then fills the old dict, which nobody looks at any more."""
        self._found = {}


def given_token(connection: HTTPConnection) -> str | None:
    header = connection.headers.get("authorization")
    if header is not None:
        scheme, _, value = header.partition(" ")
        return value.strip() if scheme.lower() == "bearer" else None
    return connection.cookies.get(COOKIE)


def _is_foreign_write(connection: HTTPConnection, method: str) -> bool:
    """A changing request that a page of another origin makes with the browser's cookie.

    SameSite lets other ports of the same host pass. Browsers send Origin with every changing request.
    """
    if method in ("GET", "HEAD", "OPTIONS") or "authorization" in connection.headers:
        return False
    origin = urlsplit(connection.headers.get("origin", "")).netloc
    return not origin or origin != connection.headers.get("host")


class TokenGuard:
    """ASGI middleware: 401 for `/v1` and `/metrics` without a token. Leaves the Principal in the request's state."""

    def __init__(self, app: ASGIApp, authenticate: Authenticator) -> None:
        self._app = app
        self._authenticate = authenticate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = await self._refusal(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(problem)(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Problem | None:
        if needed_scope(scope["method"], scope["path"]) is None:
            return None
        connection = HTTPConnection(scope)
        token = given_token(connection)
        principal = self._authenticate.known(token)
        if principal is None:
            try:
                principal = await to_thread.run_sync(self._authenticate, token)
            except OperationalError:
                return database_away()
        if principal is None:
            detail = (
                "no valid token; send `Authorization: Bearer TOKEN`. The first one lies in <data-dir>/token, an admin "
                "makes others with `bantam token create`"
            )
            return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="bantam"'})
        if _is_foreign_write(connection, scope["method"]):
            detail = "a cookie counts for changes only from this server's own page; send the Authorization header"
            return Problem(403, "foreign-origin", detail)
        connection.state.principal = principal
        return None


class ScopeGuard:
    """ASGI middleware behind TokenGuard: 403 for a token without the scope that method and path need."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = _missing_scope(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(problem)(scope, receive, send)


def _missing_scope(scope: Scope) -> Problem | None:
    needed = needed_scope(scope["method"], scope["path"])
    if needed is None:
        return None
    principal: Principal = HTTPConnection(scope).state.principal
    if needed not in principal.scopes:
        detail = (
            f"{scope['method']} {scope['path']} needs the scope `{needed}`; token {principal.token_id} has "
            f"{', '.join(principal.scopes)}. An admin makes one that has it: bantam token create NAME --scope {needed}"
        )
        challenge = f'Bearer realm="bantam", error="insufficient_scope", scope="{needed}"'
        return Problem(403, "missing-scope", detail, headers={"WWW-Authenticate": challenge})
    if scope["path"] == METRICS_PATH and principal.project_id != DEFAULT_PROJECT:
        return operators_only("metrics count what all projects do")
    return None


def operators_only(why: str) -> Problem:
    return Problem(403, "other-project", f"{why}; use a token of the project {DEFAULT_PROJECT!r}")

"""One bearer token guards the API. It is made at the first start and lies in the data folder, readable by its owner.

The check runs before a request's body is read. The browser gets the same token as an HttpOnly, SameSite=Strict cookie
(POST /v1/session), because an EventSource cannot send headers. SameSite=Strict keeps other sites' requests without it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import Problem, problem_response

COOKIE = "bantam_token"
SESSION_PATH = "/v1/session"
_GUARDED = ("/v1", "/metrics")
_MODE = 0o600


def ensure_token(path: Path) -> str:
    """The token in the file, written at the first call. Two processes that start at once get the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".token-")  # mkstemp makes it 0600
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_urlsafe(32) + "\n")
        try:
            os.link(name, path)  # fails if another process was faster: its token counts
        except FileExistsError:
            pass
        finally:
            os.unlink(name)
    token = path.read_text().strip()
    if not token:
        raise ValueError(f"{path}: empty; delete it, and the next start writes a new token")
    if path.stat().st_mode & 0o077:
        os.chmod(path, _MODE)
    return token


def is_token(given: str | None, token: str) -> bool:
    """Compares in constant time."""
    return given is not None and secrets.compare_digest(given.encode(), token.encode())


def _given(connection: HTTPConnection) -> str | None:
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
    """ASGI middleware: answers 401 for `/v1` and `/metrics` without the token, before anything of the body is read."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._refusal(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(problem)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        path: str = scope["path"]
        guarded = any(path == prefix or path.startswith(prefix + "/") for prefix in _GUARDED)
        if not guarded or path == SESSION_PATH:
            return None
        connection = HTTPConnection(scope)
        if not is_token(_given(connection), self._token):
            detail = "no valid token; send `Authorization: Bearer TOKEN`, the token lies in <data-dir>/token"
            return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": 'Bearer realm="bantam"'})
        if _is_foreign_write(connection, scope["method"]):
            detail = "a cookie counts for changes only from this server's own page; send the Authorization header"
            return Problem(403, "foreign-origin", detail)
        return None

"""What is known of every request: an id that its log lines, its audit row and its answer share, and its route.

One access line per request is logged here, when its answer has been sent: a stream's when it ends.
"""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search import logs

logger = logging.getLogger("bantam.access")
HEADER = "X-Request-Id"
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,100}")


class RequestIds:
    """ASGI middleware. A client or proxy may choose the id; anything but a plain word is replaced."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _PLAIN.fullmatch(given) else secrets.token_hex(8)
        HTTPConnection(scope).state.request_id = request_id

        async def labelled(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with logs.bound(request_id=request_id):
            await self._app(scope, receive, labelled)


class AccessLog:
    """ASGI middleware behind RequestIds. The line names no query string and no header: both may hold secrets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not logger.isEnabledFor(logging.INFO):
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = size = 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            principal = getattr(HTTPConnection(scope).state, "principal", None)
            fields = {
                "method": scope["method"],
                "path": scope["path"],
                "route": route_pattern(scope),
                "status": status,
                "bytes": size,
                "seconds": round(time.perf_counter() - began, 5),
                "client": scope["client"][0] if scope.get("client") else None,
                "project": principal and principal.project_id,
                "token": principal and principal.token_id,
            }
            known = {name: value for name, value in fields.items() if value is not None}
            logger.info("%s %s %d", scope["method"], scope["path"], status, extra={"fields": known})


def route_pattern(scope: Scope) -> str:
    """The route's pattern with its prefix, which newer releases of FastAPI keep apart from the route."""
    path = str(getattr(scope.get("route"), "path", "other"))
    nested = scope["path"].startswith("/v1/") and path.startswith("/") and not path.startswith("/v1/")
    return f"/v1{path}" if nested else path

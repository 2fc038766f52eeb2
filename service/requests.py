"""What is known of every request: an id that its log lines, its audit row and its answer share, and its route."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

        await self._app(scope, receive, labelled)


def route_pattern(scope: Scope) -> str:
    """The route's pattern with its prefix, which newer releases of FastAPI keep apart from the route."""
    path = str(getattr(scope.get("route"), "path", "other"))
    nested = scope["path"].startswith("/v1/") and path.startswith("/") and not path.startswith("/v1/")
    return f"/v1{path}" if nested else path

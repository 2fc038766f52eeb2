"""Bodies of requests other than uploads: small, and here soon, or the request is refused.

They are JSON and read into memory whole, so that a limit must hold before anything parses them.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem, problem_response

# These read their body as a stream, with limits of their own.
_STREAMED = ("/v1/models", "/v1/datasets")


class BodyGuard:
    """ASGI middleware: 413 for more than `limit` bytes, 408 for a body that takes longer than `timeout_s`."""

    def __init__(self, app: ASGIApp, *, limit: int, timeout_s: float) -> None:
        self._app = app
        self._limit = limit
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS") or scope["path"] in _STREAMED:
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        try:
            if declared.isdecimal() and int(declared) > self._limit:
                raise self._too_large()
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(receive)
        except TimeoutError:
            problem = Problem(408, "too-slow", f"the body was not complete after {self._timeout_s:g} s; send it again")
            await problem_response(problem)(scope, receive, send)
        except Problem as problem:
            await problem_response(problem)(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """None if the client has gone."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            body += message.get("body", b"")
            if len(body) > self._limit:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> Problem:
        return Problem(413, "too-large", f"more than {self._limit} bytes (BANTAM_MAX_BODY_BYTES); send less")


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body in one piece, then whatever else comes: the client's leaving."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed

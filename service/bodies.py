"""Bodies of requests other than uploads: small, and here soon, or the request is refused.

They are JSON and read into memory whole, so that a limit must hold before anything parses them.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem, problem_response
from service.refusals import shown
from service.scopes import SESSION_PATH

# These read their body as a stream, with limits of their own.
_STREAMED = ("/v1/models", "/v1/datasets")
# Open to strangers, who have nothing but a token to send.
_STRANGERS_BYTES = 4096


class BodyGuard:
    """ASGI middleware: 413 for more than `limit` bytes, 408 for a body that takes longer than `timeout_s`, 415 for one
    that is not JSON: a page of another site can send forms and text without asking, but no JSON.
    """

    def __init__(self, app: ASGIApp, *, limit: int, timeout_s: float) -> None:
        self._app = app
        self._limit = limit
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS") or scope["path"] in _STREAMED:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = min(self._limit, _STRANGERS_BYTES) if scope["path"] == SESSION_PATH else self._limit
        try:
            body = await self._checked(headers, receive, limit)
        except Problem as problem:
            await problem_response(problem)(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)

    async def _checked(self, headers: Headers, receive: Receive, limit: int) -> bytes | None:
        """None if the client has gone. Raises Problem 408, 413, 415."""
        declared = headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await _read(receive, limit)
        except TimeoutError as error:
            detail = f"the body was not complete after {self._timeout_s:g} s; send it again"
            raise Problem(408, "too-slow", detail) from error
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and kind != "application/json":
            detail = f"Content-Type {shown(kind)}: send JSON, and say so with `Content-Type: application/json`"
            raise Problem(415, "unsupported-media-type", detail)
        return body


async def _read(receive: Receive, limit: int) -> bytes | None:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(limit: int) -> Problem:
    return Problem(413, "too-large", f"more than {limit} bytes; send less, or raise BANTAM_MAX_BODY_BYTES")


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

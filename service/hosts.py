"""Which names this server answers to.

A page on a stranger's site can point its own name at 127.0.0.1 (DNS rebinding) and would then be of the same origin as
this server in the browser's eyes. The Host header still says whom the browser believes to be speaking to.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import Problem, problem_response
from service.refusals import shown

# A load balancer probes an address, not a name; the answer tells nothing.
_OPEN = ("/healthz", "/readyz")


class HostGuard:
    """ASGI middleware: 421 for a request to another name. allowed: names and patterns such as `*.example.org`."""

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        self._app = app
        self._allowed = tuple(name.lower() for name in allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("host", "")
        name = host_name(given)
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in self._allowed):
            await self._app(scope, receive, send)
            return
        detail = (
            f"Host {shown(given)}: this server does not answer to that name; if it is right, add it to "
            "BANTAM_ALLOWED_HOSTS (names with commas between) and restart"
        )
        await problem_response(Problem(421, "unknown-host", detail))(scope, receive, send)


def host_name(header: str) -> str:
    """`[::1]:8080` -> `::1`, `Example.org.:80` -> `example.org`."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")

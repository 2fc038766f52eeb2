"""What a token may do, decided from method and path alone, before anything else of a request is read.

A route cannot forget its check: what is not named here needs `read` to be read and `submit` to be changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Scope = Literal["read", "submit", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "submit", "admin")
SESSION_PATH = "/v1/session"
METRICS_PATH = "/metrics"
_GUARDED = ("/v1", METRICS_PATH)
_ADMIN = ("/v1/tokens", "/v1/projects", "/v1/audit", "/v1/webhooks")
_READING = ("GET", "HEAD", "OPTIONS")


def with_implied(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """`admin` includes `submit`, `submit` includes `read`; in this order."""
    highest = max(SCOPES.index(scope) for scope in scopes)
    return SCOPES[: highest + 1]


def needed_scope(method: str, path: str) -> Scope | None:
    """None: open to all."""
    if not _under(path, _GUARDED) or (path == SESSION_PATH and method != "GET"):
        return None
    if _under(path, _ADMIN):
        return "admin"
    return "read" if method in _READING or path == SESSION_PATH else "submit"


def _under(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)

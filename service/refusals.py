"""What the service refuses, in words that know nothing of HTTP; `service.problems` gives each its status.

Refusal
├── Unknown        no such object in this project; another project's object counts as none
├── WrongState     the object's state does not allow it
├── InUse          something else needs the object
├── Gone           what the request builds on was deleted at the same moment, or since it was first made
├── Unfit          the newest versions of what a schedule names do not fit together, or its job has become invalid
├── Taken          an object of this name exists already
├── KeyReused      the idempotency key belongs to another request
├── BadCursor      the cursor of a list is not one that this API gave out
└── LimitReached   a limit of the project or of the server
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_SHOWN_IDS = 5


class Refusal(Exception):
    """Root of all of them. The message names the value and the remedy."""


class Unknown(Refusal):
    """kind: of the object, as in the path of its list: `job` for /v1/jobs."""

    def __init__(self, kind: str, identifier: object, remedy: str | None = None) -> None:
        super().__init__(f"{kind} {shown(identifier)} does not exist; {remedy or f'GET /v1/{kind}s lists all'}")
        self.kind = kind
        self.identifier = identifier


class WrongState(Refusal):
    """The message says which states do."""


class InUse(Refusal):
    """users: kind and id of what needs the object."""

    def __init__(self, what: str, users: Sequence[tuple[str, str]], remedy: str) -> None:
        named = ", ".join(f"{kind} {identifier}" for kind, identifier in users[:_SHOWN_IDS])
        more = f" and {len(users) - _SHOWN_IDS} more" if len(users) > _SHOWN_IDS else ""
        super().__init__(f"{what} is used by {named}{more}; {remedy}")


class Gone(Refusal):
    pass


class Unfit(Refusal):
    pass


class Taken(Refusal):
    pass


class KeyReused(Refusal):
    def __init__(self) -> None:
        super().__init__("was used for another request; take a new key, or send the same request")


class BadCursor(Refusal):
    def __init__(self, cursor: str) -> None:
        super().__init__(f"{shown(cursor)}: not a cursor of this list; use next_cursor of the page before")


@dataclass(eq=False)
class LimitReached(Refusal):
    """setting: the variable that holds the limit. value: what it would be with this request.

    kind: `wait` passes by itself (after about retry_s), `full` needs room to be made, `size` is for good.
    """

    setting: str
    limit: int
    value: int
    kind: Literal["wait", "full", "size"]
    remedy: str
    retry_s: int | None = None

    def __str__(self) -> str:
        return f"{self.setting}={self.limit}: this would make {self.value}; {self.remedy}"


def shown(value: object, longest: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[:longest] + "…"

"""`Idempotency-Key`: a request that is sent again with its key changes nothing a second time.

The key is written in the transaction that does the work, so that both are there or neither. What is repeated is
answered with the object as it is now. A refused request leaves no key behind: it may be corrected and sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from service.database import Database, db_now, insert_if_new
from service.refusals import Gone, KeyReused, Unknown
from service.tables import idempotency_keys


@dataclass(frozen=True)
class Once:
    """A key and the request it came with. sha256: of method, path and body."""

    project_id: str
    key: str
    sha256: str


@dataclass(frozen=True)
class IdempotencyKey:
    """What a caller gave, before the body is known. value: None if there was no header."""

    project_id: str
    value: str | None
    operation: str

    def with_body(self, body: str = "") -> Once | None:
        """body: whatever tells two different requests to this path apart."""
        if self.value is None:
            return None
        digest = hashlib.sha256(f"{self.operation}\n{body}".encode(errors="surrogatepass")).hexdigest()
        return Once(self.project_id, self.value, digest)


def done_before(connection: Connection, once: Once | None, object_id: str) -> str | None:
    """None: this is the first time, go on in this transaction. Else the id of what the first request made or changed.

    object_id: what this request makes or changes. A second request with the same key waits here for the first one's
    transaction. Raises KeyReused.
    """
    if once is None:
        return None
    row = {"project_id": once.project_id, "key": once.key, "request_sha256": once.sha256, "object_id": object_id}
    if insert_if_new(connection, idempotency_keys, {**row, "created_at": db_now()}):
        return None
    kept = idempotency_keys.c
    query = select(kept.request_sha256, kept.object_id)
    found = connection.execute(query.where(kept.project_id == once.project_id, kept.key == once.key)).one()
    if found.request_sha256 not in (None, once.sha256):
        raise KeyReused
    return str(found.object_id)


@contextmanager
def repeated() -> Iterator[None]:
    """Around reading what the first request has made. Raises Gone if it was deleted since."""
    try:
        yield
    except Unknown as error:
        what = f"{error.kind} {error.identifier}, which the first request with this key has made"
        raise Gone(f"{what}, is deleted; take a new key to make another") from error


def forget_keys(database: Database, older_than_s: float) -> int:
    """How many were forgotten."""
    old = idempotency_keys.c.created_at < db_now() - older_than_s
    with database.write() as connection:
        return connection.execute(delete(idempotency_keys).where(old)).rowcount

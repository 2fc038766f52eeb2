"""Sends what waits in the outbox: each event at least once, by one scheduler at a time, with growing pauses.

A delivery is claimed for a limited time in a transaction of its own, sent outside of any, and noted in a second one
that compares the number of the attempt. A scheduler that dies in between leaves it to the next one.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Row, delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from service.database import Database, db_now
from service.settings import Settings
from service.tables import webhook_deliveries, webhooks
from service.webhook_sender import Answer, Sender
from service.webhook_signature import signed_headers

logger = logging.getLogger("bantam.webhooks")
_AT_ONCE = 8  # to as many webhooks; never two to one
_CLAIM_S = 60.0  # beside the time for the request itself
_LONGEST_PAUSE_S = 6 * 3600.0
_GONE = 410
_due = (
    webhook_deliveries.c.state == "pending",
    webhook_deliveries.c.next_attempt_at <= db_now(),
    (webhook_deliveries.c.claimed_until.is_(None)) | (webhook_deliveries.c.claimed_until < db_now()),
)


@dataclass(frozen=True)
class Claimed:
    id: str
    url: str
    secret: str
    body: bytes
    attempt: int
    at: float


def pause_after(attempt: int, first_s: float) -> float:
    """Seconds: 10, 40, 160 … 6 hours."""
    return float(min(first_s * 4.0 ** (attempt - 1), _LONGEST_PAUSE_S))


def claim(database: Database, *, lease_s: float) -> list[Claimed]:
    """The oldest due event of each of a few webhooks that nobody is sending to."""
    mine = webhook_deliveries.c.webhook_id == webhooks.c.id
    waiting = select(webhook_deliveries.c.id).where(mine, *_due)
    claimed = webhook_deliveries.c.state == "pending", webhook_deliveries.c.claimed_until >= db_now()
    under_way = select(webhook_deliveries.c.id).where(mine, *claimed)
    query = (
        select(webhooks)
        .where(webhooks.c.enabled.is_(True), waiting.exists(), ~under_way.exists())
        .order_by(webhooks.c.id)
        .limit(_AT_ONCE)
        .with_for_update(skip_locked=True, key_share=True)
    )
    with database.read() as connection:  # the usual answer: nothing waits, and nobody has to queue up for writing
        if connection.execute(select(webhook_deliveries.c.id).where(*_due).limit(1)).one_or_none() is None:
            return []
    with database.write() as connection:
        return [found for row in connection.execute(query).all() if (found := _claim(connection, row, lease_s))]


def _claim(connection: Connection, webhook: Row[Any], lease_s: float) -> Claimed | None:
    oldest = (
        select(webhook_deliveries.c.id)
        .where(webhook_deliveries.c.webhook_id == webhook.id, *_due)
        .order_by(webhook_deliveries.c.next_attempt_at, webhook_deliveries.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    statement = (
        update(webhook_deliveries)
        .where(webhook_deliveries.c.id == oldest)
        .values(attempts=webhook_deliveries.c.attempts + 1, claimed_until=db_now() + lease_s)
        .returning(webhook_deliveries, db_now().label("now"))
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    return Claimed(row.id, webhook.url, webhook.secret, row.body.encode(), row.attempts, row.now)


def note(database: Database, claimed: Claimed, answer: Answer, settings: Settings) -> None:
    """Changes nothing if the claim ran out and another scheduler has begun the next attempt, or all was deleted."""
    change: dict[str, Any] = {"status": answer.status, "reason": answer.reason, "claimed_until": None}
    if answer.reason is None:
        change |= {"state": "delivered", "next_attempt_at": None, "ended_at": db_now()}
    elif claimed.attempt >= settings.webhook_attempts or answer.status == _GONE:
        change |= {"state": "dead", "next_attempt_at": None, "ended_at": db_now()}
        logger.warning("event %s: given up after %d attempts: %s", claimed.id, claimed.attempt, answer.reason)
    else:
        change |= {"next_attempt_at": db_now() + pause_after(claimed.attempt, settings.webhook_retry_s)}
    same = (
        webhook_deliveries.c.id == claimed.id,
        webhook_deliveries.c.attempts == claimed.attempt,
        webhook_deliveries.c.state == "pending",
    )
    with database.write() as connection:
        connection.execute(update(webhook_deliveries).where(*same).values(**change))


def forget_deliveries(database: Database, older_than_s: float) -> int:
    """Of those that have ended; how many rows were removed."""
    with database.write() as connection:
        old = webhook_deliveries.c.ended_at < db_now() - older_than_s
        return connection.execute(delete(webhook_deliveries).where(old)).rowcount


class Courier:
    """A thread that sends what is due, as a context manager. A receiver that hangs keeps nobody else waiting for more
    than one request's time.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._sender = Sender(timeout_s=settings.webhook_timeout_s, allow_private=settings.webhook_allow_private)
        self._over = Event()
        self._thread = Thread(target=self._run, name="webhooks", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(2)  # what is still being sent then is sent again by the next scheduler

    def send_due(self) -> int:
        """One round; how many events were attempted."""
        claimed = claim(self._database, lease_s=_CLAIM_S + self._settings.webhook_timeout_s)
        if not claimed:
            return 0
        with ThreadPoolExecutor(len(claimed), thread_name_prefix="webhook") as pool:
            for one, answer in zip(claimed, pool.map(self._send, claimed), strict=True):
                note(self._database, one, answer, self._settings)
        return len(claimed)

    def _send(self, claimed: Claimed) -> Answer:
        headers = signed_headers(claimed.secret, claimed.id, int(claimed.at), claimed.body)
        fixed = {"content-type": "application/json", "user-agent": "bantam-webhook/1"}
        return self._sender.post(claimed.url, {**fixed, **headers}, claimed.body)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                if self.send_due():
                    continue
            except SQLAlchemyError as error:
                logger.warning("round failed, trying again: %s", error)
            self._over.wait(self._settings.scheduler_poll_s)

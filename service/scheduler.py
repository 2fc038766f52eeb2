"""The scheduler's process, `python -m service.scheduler`: fires due schedules, sends webhooks, settles what dead
workers left, tidies.

Any number may run; each schedule still fires once.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import asdict
from itertools import cycle

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError

from service.audit import Audit
from service.blobs import Blobs
from service.collection import collect
from service.database import Database, db_now
from service.firing import fire_due, forget_runs
from service.idempotency import forget_keys
from service.leases import Leases
from service.limits import Limits
from service.processes import StopFlag, die_with_parent, set_up_logging, stop_on_signals
from service.remote_blobs import open_blobs
from service.settings import Settings
from service.tables import workers
from service.webhook_delivery import Courier, forget_deliveries

logger = logging.getLogger("bantam.scheduler")
_CLEAN_UP_EVERY_S = 600.0
_SILENT_LEASES = 6  # a worker that was silent for this many leases is gone


def tick(database: Database, settings: Settings, now: float) -> None:
    """One round. now: seconds since the epoch, for the timetable."""
    for job_id in fire_due(database, Limits.of(settings), now):
        logger.info("job %s: submitted by its schedule", job_id)
    for job_id in Leases(database).settle_abandoned():
        logger.warning("job %s: settled, its worker is gone", job_id)
    with database.write() as connection:
        gone = workers.c.heartbeat_at < db_now() - _SILENT_LEASES * settings.lease_s
        connection.execute(delete(workers).where(gone))


def clean_up(database: Database, store: Blobs, settings: Settings, prefix: str) -> None:
    """Forgets what is older than it is to be kept. prefix: two hex digits, others at each call."""
    rows = Audit(database).forget(settings.audit_keep_s)
    keys = forget_keys(database, settings.idempotency_keep_s)
    runs = forget_runs(database, settings.schedule_runs_keep_s)
    events = forget_deliveries(database, settings.webhook_keep_s)
    if rows or keys or runs or events:
        words = "removed %d rows of the audit log, %d idempotency keys, %d ticks, %d webhook events"
        logger.info(words, rows, keys, runs, events)
    found = collect(database, store, settings, prefix)
    if found:
        logger.info("collected %s", ", ".join(f"{k} {v}" for k, v in asdict(found).items() if v))


def main(settings: Settings | None = None) -> None:
    stop = stop_on_signals()
    die_with_parent()
    settings = settings or Settings()
    set_up_logging(settings)
    database = Database(settings.database)
    with Courier(database, settings):
        _run(database, settings, stop)
    database.close()


def _run(database: Database, settings: Settings, stop: StopFlag) -> None:
    store = open_blobs(settings)
    # Replicas that start at once begin elsewhere, so that they do not list the same part of the store.
    prefixes = cycle(f"{(os.getpid() + n) % 256:02x}" for n in range(256))
    cleaned = time.monotonic() - _CLEAN_UP_EVERY_S
    while not stop.is_set():
        try:
            tick(database, settings, database.clock())
            if time.monotonic() - cleaned >= _CLEAN_UP_EVERY_S:
                cleaned = time.monotonic()
                clean_up(database, store, settings, next(prefixes))
        except SQLAlchemyError as error:
            logger.warning("round failed, trying again: %s", error)
        except Exception:  # a blob store that does not answer, a full disk: schedules fire all the same
            logger.exception("clean-up failed, trying again in %.0f s", _CLEAN_UP_EVERY_S)
        stop.wait(settings.scheduler_poll_s)


if __name__ == "__main__":
    main()

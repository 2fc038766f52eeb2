"""The scheduler's process, `python -m service.scheduler`: fires due schedules and settles what dead workers left.

Any number may run; each schedule still fires once.
"""

from __future__ import annotations

import logging
import time

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError

from service.database import Database, db_now
from service.leases import Leases
from service.processes import die_with_parent, set_up_logging, stop_on_signals
from service.schedules import Schedules
from service.settings import Settings
from service.tables import workers

logger = logging.getLogger("bantam.scheduler")
_SILENT_LEASES = 6  # a worker that was silent for this many leases is gone


def tick(database: Database, settings: Settings, now: float) -> None:
    """One round. now: seconds since the epoch, for the timetable; leases go by the database's clock."""
    for job_id in Schedules(database).fire_due(now):
        logger.info("job %s: submitted by its schedule", job_id)
    for job_id in Leases(database).settle_abandoned():
        logger.warning("job %s: settled, its worker is gone", job_id)
    with database.write() as connection:
        gone = workers.c.heartbeat_at < db_now() - _SILENT_LEASES * settings.lease_s
        connection.execute(delete(workers).where(gone))


def main(settings: Settings | None = None) -> None:
    stop = stop_on_signals()
    die_with_parent()
    settings = settings or Settings()
    set_up_logging(settings)
    database = Database(settings.database)
    while not stop.is_set():
        try:
            tick(database, settings, time.time())
        except SQLAlchemyError as error:
            logger.warning("round failed, trying again: %s", error)
        stop.wait(settings.scheduler_poll_s)
    database.close()


if __name__ == "__main__":
    main()

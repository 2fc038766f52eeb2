"""Signs of life of a worker, from a thread and connection of their own, so that a busy search cannot delay them."""

from __future__ import annotations

import logging
import os
import socket
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self

from sqlalchemy import delete, insert, update
from sqlalchemy.exc import SQLAlchemyError

from service.database import Database, db_now
from service.leases import Lease, Leases
from service.tables import workers

logger = logging.getLogger("bantam.worker")


class Heartbeat:
    """Context manager around a worker's life; `working_on` names the lease to renew.

    A database that does not answer is no reason to stop: the next beat tries again, and if the lease has run out by
    then, the fencing token keeps this worker from writing.
    """

    def __init__(self, database: Database, worker: str, *, every_s: float, lease_s: float) -> None:
        self._database = database
        self._leases = Leases(database)
        self._worker = worker
        self._every_s = every_s
        self._lease_s = lease_s
        self._lease: Lease | None = None
        self._lock = Lock()
        self._over = Event()
        self._thread = Thread(target=self._beat, name="heartbeat", daemon=True)

    def working_on(self, lease: Lease | None) -> None:
        """A lease must be named as soon as it is claimed, and None as soon as it is given back."""
        with self._lock:
            self._lease = lease

    def __enter__(self) -> Self:
        with self._database.write() as connection:
            connection.execute(insert(workers).values(self._row(None)))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        try:
            with self._database.write() as connection:
                connection.execute(delete(workers).where(workers.c.id == self._worker))
        except SQLAlchemyError as failure:
            logger.warning("could not sign off: %s", failure)

    def _row(self, job_id: str | None) -> dict[str, Any]:
        place = {"id": self._worker, "host": socket.gethostname(), "pid": os.getpid()}
        return {**place, "job_id": job_id, "started_at": db_now(), "heartbeat_at": db_now()}

    def _beat(self) -> None:
        while not self._over.wait(self._every_s):
            with self._lock:
                lease = self._lease
            try:
                job_id = None if lease is None else lease.job_id
                row = {"job_id": job_id, "heartbeat_at": db_now()}
                with self._database.write() as connection:
                    beat = connection.execute(update(workers).where(workers.c.id == self._worker).values(**row))
                    if beat.rowcount == 0:  # it was silent for so long that its row was removed
                        connection.execute(insert(workers).values(self._row(job_id)))
                if lease is not None and not self._leases.renew(lease, self._lease_s):
                    with self._lock:
                        # Not lost if the job has ended meanwhile: its last write gives the lease back.
                        if self._lease is lease:
                            logger.debug("job %s: the lease is over", lease.job_id)
                            self._lease = None
            except SQLAlchemyError as failure:
                logger.warning("heartbeat failed, trying again: %s", failure)

"""A worker's loop: claim a job, run its search, keep its lease alive, clean up. The search is an argument."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import traceback
from collections.abc import Callable

from sqlalchemy.exc import OperationalError

from search import logs
from search.inputs import JobInputs
from search.ledger import LeaseLost, Ledger
from search.records import JobState
from service.database import Database
from service.heartbeat import Heartbeat
from service.job_inputs import job_inputs
from service.leases import Lease, Leases
from service.ledger import SqlLedger
from service.outside import outside_reason
from service.processes import StopFlag
from service.remote_blobs import open_blobs
from service.settings import Settings

logger = logging.getLogger("bantam.worker")
RunJob = Callable[[JobInputs, Ledger], None]


def worker_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class JobWorker:
    """Runs one job at a time until `stop` is set. A job that is running then goes back to the queue."""

    def __init__(self, settings: Settings, run_job: RunJob, stop: StopFlag) -> None:
        self._settings = settings
        self._run_job = run_job
        self._stop = stop
        self._database = Database(settings.database)
        self._blobs = open_blobs(settings)
        self._leases = Leases(self._database)
        self.name = worker_name()

    def run(self) -> None:
        settings = self._settings
        beats = Heartbeat(self._database, self.name, every_s=settings.heartbeat_s, lease_s=settings.lease_s)
        with beats as heartbeat:
            while not self._stop.is_set():
                try:
                    worked = self.work_once(heartbeat)
                except OperationalError as error:
                    logger.warning("the database does not answer, trying again: %s", error)
                    worked = False
                if not worked:
                    self._stop.wait(settings.worker_poll_s)
        self._database.close()

    def work_once(self, heartbeat: Heartbeat) -> bool:
        """Runs the next job as far as it goes; False if none waits."""
        lease = self._leases.claim(self.name, self._settings.lease_s, max_running=self._settings.max_running_jobs)
        if lease is None:
            return False
        heartbeat.working_on(lease)
        try:
            with logs.bound(job_id=lease.job_id, worker=self.name):
                logger.info("begins (lease %d)", lease.token)
                self._work(lease)
        finally:
            heartbeat.working_on(None)
        return True

    def _work(self, lease: Lease) -> None:
        """Whatever happens, the job is left finished, queued or to a worker that has taken it over."""
        ledger = SqlLedger(self._database, self._blobs, lease, stopping=self._stop.is_set)
        reason = details = "the search ended without a result; this is a defect, its log may say more"
        try:
            self._run_job(job_inputs(lease, self._database, self._blobs, self._settings), ledger)
        except LeaseLost as loss:
            if self._stop.is_set():
                self._leases.release(lease)
            logger.info("left (%s)", loss)
            return
        except Exception as error:
            if self._stop.is_set():  # what broke under a signal is no fault of the job
                self._leases.release(lease)
                return
            outside = outside_reason(error)
            if outside is not None:
                logger.warning("the attempt has ended, no fault of the job: %s", outside)
                # If not even this can be written, the lease runs out, and the job is taken up again all the same.
                self._leases.fail_outside(lease, outside)
                return
            logger.exception("failed")
            reason = f"{type(error).__name__}: {error}"
            details = traceback.format_exc()
        self._fail_if_unfinished(lease, ledger, reason, details)

    def _fail_if_unfinished(self, lease: Lease, ledger: Ledger, reason: str, details: str) -> None:
        failed: JobState = "failed"
        try:
            ledger.log("error", details)
            ledger.finish(failed, outcome=None, reason=reason, report=None)
        except LeaseLost:
            logger.info("ended")  # the usual way: the search has given the lease back itself

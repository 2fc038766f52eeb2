"""`search.ledger.Ledger` on SQL, bound to one leased job. Every write compares the lease's fencing token."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from search.ledger import ArtifactName, Directive, LeaseLost, LogLevel, Released
from search.records import Baseline, Best, JobState, Outcome, Progress, Trial
from service.attempts import ended
from service.blob_register import take_in
from service.blobs import Blobs
from service.curves import add_point
from service.database import Database, db_now
from service.job_end import note_end
from service.leases import NO_LEASE, Lease, spent_until_now
from service.tables import artifacts, job_logs, jobs
from service.trial_writes import TrialWriter
from service.trials import all_trials, settle_running_trials

_CURVE = ("trial", "metric", "latency_ratio", "size_ratio", "feasible")
_spent = (jobs.c.elapsed_s + spent_until_now).label("spent_s")


class SqlLedger:
    """One transaction per call. stopping: says that this worker is to stop; `directive` then raises Released."""

    def __init__(
        self, database: Database, blobs: Blobs, lease: Lease, *, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._lease = lease
        self._stopping = stopping
        self._trials = TrialWriter(lease.job_id, lease.token)

    @property
    def lease(self) -> Lease:
        return self._lease

    def directive(self) -> Directive:
        if self._stopping():
            raise Released(f"job {self._lease.job_id}: this worker is told to stop")
        query = select(jobs.c.directive, jobs.c.lease_token).where(jobs.c.id == self._lease.job_id)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None or row.lease_token != self._lease.token:
            raise self._lost()
        directive: Directive = row.directive
        return directive

    def elapsed_s(self) -> float:
        return self._lease.elapsed_s

    def trials(self) -> Sequence[Trial]:
        with self._database.read() as connection:
            documents = all_trials(connection, self._lease.job_id)
        return [Trial.from_json({k: v for k, v in d.items() if k != "rev"}) for d in documents]

    def put_trial(self, trial: Trial) -> None:
        """Leaves the place on the front of a trial that is there already to `put_front`."""
        row = self._trials.row(trial)
        alone = self._trials.is_one_statement(row)
        self._write_trials(lambda connection: self._trials.put(connection, row), alone=alone)

    def put_front(self, numbers: Sequence[int]) -> None:
        self._write_trials(lambda connection: self._trials.put_front(connection, numbers))

    def _write_trials(self, write: Callable[[Connection], bool], *, alone: bool = False) -> None:
        try:
            with self._database.statement() if alone else self._database.write() as connection:
                if not write(connection):
                    raise self._lost()
        except BaseException:
            self._trials.forget()
            raise

    def put_baseline(self, baseline: Baseline) -> None:
        self._put({"baseline": asdict(baseline)})

    def put_best(self, best: Best) -> None:
        document = asdict(best)
        with self._database.write() as connection:
            job = self._change(connection, {"best": document})
            point = {name: document[name] for name in _CURVE}
            add_point(connection, self._lease.job_id, "best", job.spent_s, point)

    def put_progress(self, progress: Progress) -> None:
        self._put({"progress": asdict(progress)})

    def put_artifact(self, name: ArtifactName, path: Path) -> None:
        blob = take_in(self._database, self._blobs, path)
        with self._database.write() as connection:
            job = self._change(connection)
            row = {
                "filename": _filename(job.name or job.id, name, path.suffix),
                "sha256": blob.sha256,
                "bytes": blob.bytes,
                "created_at": db_now(),
            }
            key = {"job_id": self._lease.job_id, "name": name}
            where = (artifacts.c.job_id == key["job_id"], artifacts.c.name == name)
            if connection.execute(update(artifacts).where(*where).values(**row)).rowcount == 0:
                connection.execute(insert(artifacts).values(**key, **row))

    def log(self, level: LogLevel, message: str, trial: int | None = None) -> None:
        with self._database.write() as connection:
            rev = self._change(connection).rev
            row = {"seq": rev, "at": db_now(), "level": level, "message": message, "trial": trial}
            connection.execute(insert(job_logs).values(job_id=self._lease.job_id, **row))

    def finish(
        self, state: JobState, *, outcome: Outcome | None, reason: str | None, report: Mapping[str, Any] | None
    ) -> None:
        with self._database.write() as connection:
            held = self._change(connection, raise_by=0)
            directive = held.directive
            if state == "paused" and directive == "cancel":  # cancelled while it was pausing
                state, reason = "cancelled", "cancelled by its owner"
            change: dict[str, Any] = {"state": state, "outcome": outcome, "reason": reason}
            if report is not None:
                change["report"] = dict(report)
            if state == "paused":
                change["directive"] = "run"
            else:
                change["finished_at"] = db_now()
                settle_running_trials(connection, self._lease.job_id, f"the job ended as {state}")
            change["attempts"] = ended(held.attempts, held.now, reason or state)
            self._change(connection, {**change, "elapsed_s": jobs.c.elapsed_s + spent_until_now, **NO_LEASE})
            if state != "paused":
                note_end(connection, self._lease.job_id)

    def _put(self, change: Mapping[str, Any]) -> None:
        with self._database.write() as connection:
            self._change(connection, change)

    def _change(
        self, connection: Connection, change: Mapping[str, Any] | None = None, *, raise_by: int = 1
    ) -> Row[Any]:
        """Changes the job's row and raises its revision if the lease is still ours; locks the row either way."""
        statement = (
            update(jobs)
            .where(jobs.c.id == self._lease.job_id, jobs.c.lease_token == self._lease.token)
            .values(rev=jobs.c.rev + raise_by, **(change or {}))
            .returning(
                jobs.c.id, jobs.c.name, jobs.c.rev, jobs.c.directive, jobs.c.attempts, _spent, db_now().label("now")
            )
        )
        row = connection.execute(statement).one_or_none()
        if row is None:
            raise self._lost()
        return row

    def _lost(self) -> LeaseLost:
        return LeaseLost(f"job {self._lease.job_id}: lease {self._lease.token} of {self._lease.worker} is over")


def _filename(label: str, which: str, suffix: str) -> str:
    """A harmless file name for a download: the job's name is a label and may hold anything."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", label).strip(".-")[:100] or "job"
    return f"{stem}-{which}{suffix or '.onnx'}"

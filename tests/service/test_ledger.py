from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import select, update

from search.ledger import Directive, Ledger
from service.blobs import BlobStore
from service.curves import read_curve
from service.database import Database, db_now
from service.leases import Lease, Leases
from service.ledger import SqlLedger
from service.settings import Settings
from service.tables import artifacts, job_logs, jobs, trials
from tests.conformance.ledger import LedgerConformance, a_trial
from tests.service.rows import add_job


class SqlJob:
    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.blobs = BlobStore(folder / "blobs")
        self.id = add_job(database)

    def coordinator(self, stopping: Callable[[], bool] = lambda: False) -> Ledger:
        with self.database.write() as connection:
            connection.execute(update(jobs).values(lease_expires_at=db_now() - 1))
        lease = Leases(self.database).claim("w", 60)
        assert lease is not None
        return SqlLedger(self.database, self.blobs, lease, stopping=stopping)

    def wish(self, directive: Directive) -> None:
        with self.database.write() as connection:
            connection.execute(update(jobs).values(directive=directive))

    def shown(self, field: str) -> object:
        with self.database.read() as connection:
            return connection.execute(select(jobs.c[field]).where(jobs.c.id == self.id)).scalar_one()

    def revision(self) -> int:
        rev = self.shown("rev")
        assert isinstance(rev, int)
        return rev

    def state(self) -> str:
        return str(self.shown("state"))

    def trial_revisions(self) -> dict[int, int]:
        with self.database.read() as connection:
            return {row.number: row.rev for row in connection.execute(select(trials))}

    def artifact(self, name: str) -> bytes:
        with self.database.read() as connection:
            row = connection.execute(select(artifacts).where(artifacts.c.name == name)).one()
        return self.blobs.path(row.sha256).read_bytes()

    def log_lines(self) -> list[tuple[str, str, int | None]]:
        with self.database.read() as connection:
            return [(r.level, r.message, r.trial) for r in connection.execute(select(job_logs))]


class TestSqlLedger(LedgerConformance):
    @pytest.fixture
    def job(self, database: Database, tmp_path: Path) -> SqlJob:
        return SqlJob(database, tmp_path)


def test_elapsed_counts_up_to_the_last_heartbeat(database: Database, tmp_path: Path) -> None:
    job = SqlJob(database, tmp_path)
    job.coordinator()
    with database.write() as connection:
        connection.execute(update(jobs).values(lease_acquired_at=db_now() - 100, lease_heartbeat_at=db_now() - 30))
    assert job.coordinator().elapsed_s() == pytest.approx(70, abs=0.5)


def test_elapsed_counts_up_to_now_when_a_coordinator_pauses(database: Database, tmp_path: Path) -> None:
    job = SqlJob(database, tmp_path)
    ledger = job.coordinator()
    with database.write() as connection:
        connection.execute(update(jobs).values(lease_acquired_at=db_now() - 100))
    ledger.finish("paused", outcome=None, reason=None, report=None)
    assert job.shown("elapsed_s") == pytest.approx(100, abs=0.5)
    assert (job.state(), job.shown("directive"), job.shown("finished_at")) == ("paused", "run", None)


def test_a_directive_costs_one_short_read(database: Database, tmp_path: Path) -> None:
    ledger = SqlJob(database, tmp_path).coordinator()
    for number in range(50):
        ledger.put_trial(a_trial(number))
    began = time.perf_counter()
    for _ in range(20):
        ledger.directive()
    assert (time.perf_counter() - began) / 20 < 0.05


def test_a_file_is_offered_under_a_harmless_name(database: Database, tmp_path: Path) -> None:
    job = SqlJob(database, tmp_path)
    with database.write() as connection:
        connection.execute(update(jobs).values(name='../../etc/"pässwd\r\n'))
    file = tmp_path / "x.onnx"
    file.write_bytes(b"onnx")
    job.coordinator().put_artifact("winner", file)
    with database.read() as connection:
        assert connection.execute(select(artifacts.c.filename)).scalar_one() == "etc-p-sswd-winner.onnx"


def write_many(path: Path, job: str, token: int, errors: list[Exception]) -> None:
    database = Database(f"sqlite:///{path}")
    try:
        ledger = SqlLedger(database, BlobStore(path.parent / "blobs"), Lease(job, token, "w", 0.0))
        for number in range(40):
            ledger.put_trial(a_trial(number, "running", None))
            ledger.put_trial(a_trial(number))
    except Exception as error:
        errors.append(error)
    finally:
        database.close()


def test_many_writers_of_sqlite_wait_for_each_other(sqlite_settings: Settings) -> None:
    database = Database(sqlite_settings.database)
    held = [(add_job(database), Leases(database).claim("w", 600)) for _ in range(8)]
    errors: list[Exception] = []
    path = Path(str(database.url.database))
    writers = [Thread(target=write_many, args=(path, job, lease.token, errors)) for job, lease in held if lease]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert (len(writers), errors) == (8, [])
    with database.read() as connection:
        rows = connection.execute(select(jobs.c.rev, jobs.c.trial_counts)).all()
        assert [(row.rev, row.trial_counts) for row in rows] == [(2 + 80, {"completed": 40})] * 8
    database.close()


def test_counts_by_state_are_kept_with_every_write(database: Database, tmp_path: Path) -> None:
    job = SqlJob(database, tmp_path)
    ledger = job.coordinator()
    for number, state in enumerate(("running", "completed", "gated", "running", "failed", "running")):
        ledger.put_trial(a_trial(number, state))
    ledger.put_trial(a_trial(0, "completed"))
    ledger = job.coordinator()
    ledger.put_trial(a_trial(3, "stopped"))
    expected = {"completed": 2, "gated": 1, "running": 1, "failed": 1, "stopped": 1}
    assert job.shown("trial_counts") == expected
    ledger.finish("cancelled", outcome=None, reason=None, report=None)
    assert job.shown("trial_counts") == {"completed": 2, "gated": 1, "failed": 2, "stopped": 1}


def test_a_trial_that_is_tuned_again_keeps_its_place_on_the_front(database: Database, tmp_path: Path) -> None:
    ledger = SqlJob(database, tmp_path).coordinator()
    ledger.put_trial(a_trial(0))
    ledger.put_front([0])
    ledger.put_trial(a_trial(0, "running"))
    assert [t.on_front for t in ledger.trials()] == [True]


def test_curves_get_a_point_where_they_change(database: Database, tmp_path: Path) -> None:
    job = SqlJob(database, tmp_path)
    ledger = job.coordinator()
    for number, (at, volume) in enumerate(((1.0, 0.1), (2.0, 0.1), (3.0, 0.4))):
        ledger.put_trial(replace(a_trial(number), elapsed_s=at, hypervolume=volume))
    ledger = job.coordinator()
    for number, volume in ((3, 0.4), (4, 0.5)):
        ledger.put_trial(replace(a_trial(number), elapsed_s=float(number), hypervolume=volume))
    with database.read() as connection:
        points = read_curve(connection, job.id, "hypervolume", 100)
        assert [(p["elapsed_s"], p["hypervolume"], p["trial"]) for p in points] == [
            (1.0, 0.1, 0),
            (3.0, 0.4, 2),
            (4.0, 0.5, 4),
        ]
        ends = read_curve(connection, job.id, "hypervolume", 2)
        assert [p["trial"] for p in ends] == [0, 4]

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from search.inputs import JobInputs
from search.ledger import LeaseLost, Ledger
from search.records import Trial
from service.blobs import BlobStore
from service.database import Database
from service.job_worker import JobWorker, RunJob
from service.leases import Leases
from service.processes import StopFlag
from service.settings import Settings
from service.tables import workers
from service.trials import Trials
from tests.service.fake_worker import TRIALS
from tests.service.rows import DATASET, LIMITS, MODEL, jobs_of, make_spec

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CONTENT = b"row"  # what the rows of `add_inputs` say that the files hold


def until(condition: Callable[[], Any], timeout_s: float = 20) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.02)
    return found


@pytest.fixture
def store(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database)
    file = settings.data_dir / "file"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(CONTENT)
    BlobStore(settings.blobs_dir).adopt(file)
    yield database
    database.close()


@pytest.fixture
def submit(store: Database) -> Callable[[], str]:
    return lambda: str(jobs_of(store).create(make_spec(store), LIMITS).id)


class Running:
    """A worker in a thread of this process."""

    def __init__(self, settings: Settings, search: RunJob) -> None:
        self.stop = StopFlag()
        self.worker = JobWorker(settings, search, self.stop)
        self.thread = Thread(target=self.worker.run)
        self.thread.start()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def start(settings: Settings) -> Iterator[Callable[[RunJob], Running]]:
    running: list[Running] = []

    def begin(search: RunJob) -> Running:
        running.append(Running(settings, search))
        return running[-1]

    yield begin
    for one in running:
        one.end()


Start = Callable[[RunJob], Running]


def state_of(store: Database, job_id: str) -> str:
    return str(jobs_of(store).get(job_id).state)


@on_sqlite
def test_a_search_gets_the_files_and_folders_of_its_job(
    store: Database, settings: Settings, submit: Callable[[], str], start: Start
) -> None:
    seen: list[JobInputs] = []

    def search(inputs: JobInputs, ledger: Ledger) -> None:
        seen.append(inputs)
        ledger.finish("succeeded", outcome="feasible", reason=None, report={})

    job_id = submit()
    start(search)
    until(lambda: state_of(store, job_id) == "succeeded")
    (inputs,) = seen
    assert inputs.job_id == job_id
    assert inputs.model.path.read_bytes() == CONTENT
    assert inputs.model.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert inputs.model.description == MODEL
    (dataset,) = inputs.datasets.values()
    assert inputs.datasets.keys() == {inputs.spec.data.train}
    assert (dataset.path.read_bytes(), dataset.description) == (CONTENT, DATASET)
    assert inputs.workspace == settings.data_dir / "jobs" / job_id
    assert inputs.workspace.is_dir()
    assert inputs.cache.is_dir()


@on_sqlite
def test_a_crash_of_the_search_fails_the_job_with_its_reason(
    store: Database, submit: Callable[[], str], start: Start
) -> None:
    def search(inputs: JobInputs, ledger: Ledger) -> None:
        ledger.put_trial(Trial(number=0, state="running"))
        raise RuntimeError("shape mismatch in fc1")

    first, second = submit(), submit()
    start(search)
    until(lambda: {state_of(store, first), state_of(store, second)} == {"failed"})
    assert jobs_of(store).get(first).reason == "RuntimeError: shape mismatch in fc1"
    [line] = Trials(store).logs(first, after=0, limit=9)
    assert line.message.startswith("Traceback")
    assert line.message.endswith("RuntimeError: shape mismatch in fc1\n")
    assert [t["state"] for t in Trials(store).all(first)] == ["failed"]


@on_sqlite
def test_a_database_that_was_away_is_no_fault_of_the_job(
    store: Database, submit: Callable[[], str], start: Start
) -> None:
    tries: list[float] = []

    def search(inputs: JobInputs, ledger: Ledger) -> None:
        tries.append(time.monotonic())
        if len(tries) == 1:
            raise OperationalError("UPDATE jobs", {}, ConnectionError("server closed the connection"))
        ledger.finish("succeeded", outcome="feasible", reason=None, report={})

    job_id = submit()
    start(search)
    until(lambda: state_of(store, job_id) == "succeeded")
    assert len(tries) == 2


@on_sqlite
def test_a_search_that_ends_without_a_result_fails_the_job(
    store: Database, submit: Callable[[], str], start: Start
) -> None:
    job_id = submit()
    start(lambda inputs, ledger: None)
    until(lambda: state_of(store, job_id) == "failed")
    assert "ended without a result" in jobs_of(store).get(job_id).reason


@on_sqlite
def test_a_job_whose_files_are_gone_fails_with_the_remedy(
    store: Database, settings: Settings, submit: Callable[[], str], start: Start
) -> None:
    job_id = submit()
    for path in settings.blobs_dir.rglob("*"):
        if path.is_file():
            path.unlink()
    start(lambda inputs, ledger: None)
    until(lambda: state_of(store, job_id) == "failed")
    assert "upload it again" in jobs_of(store).get(job_id).reason


def test_the_heartbeat_keeps_a_busy_worker_its_job(
    store: Database, settings: Settings, submit: Callable[[], str], start: Start
) -> None:
    def search(inputs: JobInputs, ledger: Ledger) -> None:
        time.sleep(1.5 * settings.lease_s)
        ledger.finish("succeeded", outcome="feasible", reason=None, report={})

    job_id = submit()
    start(search)
    until(lambda: state_of(store, job_id) == "running")
    stolen: list[object] = []
    while state_of(store, job_id) == "running":
        stolen.append(Leases(store).claim("thief", 10))
        time.sleep(0.1)
    assert not any(stolen)
    assert state_of(store, job_id) == "succeeded"


@on_sqlite
def test_a_stopping_worker_puts_its_job_back(store: Database, submit: Callable[[], str], start: Start) -> None:
    left: list[type[BaseException]] = []

    def search(inputs: JobInputs, ledger: Ledger) -> None:
        try:
            while True:
                ledger.directive()
                time.sleep(0.02)
        except LeaseLost as loss:
            left.append(type(loss))
            raise

    job_id = submit()
    running = start(search)
    until(lambda: state_of(store, job_id) == "running")
    running.end()
    assert [kind.__name__ for kind in left] == ["Released"]
    assert state_of(store, job_id) == "queued"
    with store.read() as connection:
        assert connection.execute(select(func.count()).select_from(workers)).scalar_one() == 0


@on_sqlite
def test_a_worker_says_what_it_works_on(store: Database, submit: Callable[[], str], start: Start) -> None:
    def search(inputs: JobInputs, ledger: Ledger) -> None:
        while ledger.directive() == "run":
            time.sleep(0.02)
        ledger.finish("cancelled", outcome=None, reason="asked to", report=None)

    def row() -> Any:
        with store.read() as connection:
            return connection.execute(select(workers)).one_or_none()

    job_id = submit()
    start(search)
    until(lambda: row() is not None and row().job_id == job_id)
    assert row().pid == os.getpid()
    jobs_of(store).steer(job_id, "cancel")
    until(lambda: state_of(store, job_id) == "cancelled")
    until(lambda: row().job_id is None)


class Fleet:
    """Real worker processes with a pretended search."""

    def __init__(self, settings: Settings) -> None:
        self.environment = {**os.environ, **settings.environment(), "PYTHONPATH": str(Path(__file__).parents[2])}
        self.processes: list[subprocess.Popen[bytes]] = []

    def launch(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.service.fake_worker"]
        self.processes.append(subprocess.Popen(command, env=self.environment))
        return self.processes[-1]


@pytest.fixture
def fleet(settings: Settings) -> Iterator[Fleet]:
    fleet = Fleet(settings)
    yield fleet
    for process in fleet.processes:
        process.kill()
        process.wait()


def finished(store: Database, job_id: str) -> dict[int, int]:
    """Revision by number of the completed trials."""
    return {t["number"]: t["rev"] for t in Trials(store).all(job_id) if t["state"] == "completed"}


def test_a_killed_workers_job_is_taken_over_with_nothing_lost(
    store: Database, settings: Settings, submit: Callable[[], str], fleet: Fleet
) -> None:
    job_id = submit()
    first = fleet.launch()
    until(lambda: len(finished(store, job_id)) >= 5)
    until(lambda: (row := jobs_of(store).get(job_id)).lease_heartbeat_at > row.lease_acquired_at)
    first.send_signal(signal.SIGKILL)
    first.wait()
    killed = time.monotonic()
    before = finished(store, job_id)
    fleet.launch()
    until(lambda: len(finished(store, job_id)) > len(before))
    assert time.monotonic() - killed < settings.lease_s + 5
    until(lambda: state_of(store, job_id) == "succeeded")

    after = finished(store, job_id)
    assert sorted(after) == list(range(TRIALS))
    assert {n: after[n] for n in before} == before, "a finished trial is not written again"
    assert {t["state"] for t in Trials(store).all(job_id)} == {"completed"}
    computed = [int(n) for n in (settings.workspace(job_id) / "computed").read_text().split()]
    assert set(computed) == set(range(TRIALS))
    assert len(computed) <= TRIALS + 1, "at most the trial that was cut off is computed again"
    assert jobs_of(store).get(job_id).report["elapsed_s"] > 0


@on_sqlite
def test_a_worker_that_is_told_to_stop_leaves_its_job_to_the_next_at_once(
    store: Database, settings: Settings, submit: Callable[[], str], fleet: Fleet
) -> None:
    job_id = submit()
    first = fleet.launch()
    until(lambda: len(finished(store, job_id)) >= 3)
    first.send_signal(signal.SIGTERM)
    assert first.wait(5) == 0
    assert state_of(store, job_id) == "queued"
    stopped = time.monotonic()
    fleet.launch()
    until(lambda: state_of(store, job_id) == "running")
    assert time.monotonic() - stopped < settings.lease_s + 2
    until(lambda: state_of(store, job_id) == "succeeded")
    assert sorted(finished(store, job_id)) == list(range(TRIALS))


@on_sqlite
def test_pause_and_resume_keep_what_is_done(store: Database, submit: Callable[[], str], fleet: Fleet) -> None:
    job_id = submit()
    fleet.launch()
    until(lambda: len(finished(store, job_id)) >= 3)
    jobs_of(store).steer(job_id, "pause")
    until(lambda: state_of(store, job_id) == "paused")
    paused = finished(store, job_id)
    jobs_of(store).steer(job_id, "resume")
    until(lambda: state_of(store, job_id) == "succeeded")
    after = finished(store, job_id)
    assert {n: after[n] for n in paused} == paused

from __future__ import annotations

import errno
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
    assert inputs.workspace.parent == settings.data_dir / "jobs" / job_id
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

    job_id = str(jobs_of(store).create(make_spec(store, retry={"delay_s": 0.1}), LIMITS).id)
    start(search)
    until(lambda: state_of(store, job_id) == "succeeded")
    assert len(tries) == 2
    first, second = jobs_of(store).get(job_id).attempts
    assert first["reason"] == "the database did not answer: server closed the connection"
    assert second["reason"] == "succeeded"


@on_sqlite
def test_a_full_disk_is_no_fault_of_the_job(store: Database, submit: Callable[[], str], start: Start) -> None:
    def search(inputs: JobInputs, ledger: Ledger) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "checkpoint.pt")

    job_id = submit()
    start(search)
    until(lambda: state_of(store, job_id) == "queued" and jobs_of(store).get(job_id).retry_at is not None)
    assert "No space left on device" in jobs_of(store).get(job_id).reason


@on_sqlite
def test_a_failed_job_goes_on_from_its_trials_when_it_is_retried(
    store: Database, submit: Callable[[], str], start: Start
) -> None:
    seen: list[dict[int, str]] = []

    def search(inputs: JobInputs, ledger: Ledger) -> None:
        seen.append({t.number: t.state for t in ledger.trials()})
        if len(seen) == 1:
            ledger.put_trial(Trial(number=0, state="completed", metric=0.5))
            ledger.put_trial(Trial(number=1, state="failed", reason="its recipe does not fit"))
            ledger.put_trial(Trial(number=2, state="running"))
            (inputs.workspace / "checkpoint").write_text("kept")
            raise RuntimeError("a defect")
        assert (inputs.workspace / "checkpoint").read_text() == "kept"
        ledger.put_trial(Trial(number=2, state="completed", metric=0.6))
        ledger.finish("succeeded", outcome="feasible", reason=None, report={})

    job_id = submit()
    start(search)
    until(lambda: state_of(store, job_id) == "failed")
    failed = {t["number"]: t["reason"] for t in Trials(store).all(job_id) if t["state"] == "failed"}
    assert failed == {1: "its recipe does not fit", 2: "cut off: the job ended as failed"}
    row = jobs_of(store).retry(job_id, LIMITS)
    assert (row.reason, row.finished_at, row.directive) == (None, None, "run")
    until(lambda: state_of(store, job_id) == "succeeded")
    assert seen[1] == {0: "completed", 1: "failed", 2: "running"}
    assert [a["reason"] for a in jobs_of(store).get(job_id).attempts] == ["RuntimeError: a defect", "succeeded"]


@on_sqlite
def test_a_worker_on_another_host_goes_on_without_the_first_ones_folder(
    store: Database, settings: Settings, submit: Callable[[], str], tmp_path: Path
) -> None:
    """Two data folders; database and blobs are shared."""
    elsewhere = settings.model_copy(update={"data_dir": tmp_path / "elsewhere"})
    elsewhere.data_dir.mkdir()
    elsewhere.blobs_dir.symlink_to(settings.blobs_dir, target_is_directory=True)
    fleets = Fleet(settings), Fleet(elsewhere)
    try:
        job_id = submit()
        first = fleets[0].launch()
        until(lambda: len(finished(store, job_id)) >= 5)
        first.send_signal(signal.SIGKILL)
        first.wait()
        before = finished(store, job_id)
        fleets[1].launch()
        until(lambda: state_of(store, job_id) == "succeeded")
        after = finished(store, job_id)
        assert {n: after[n] for n in before} == before
        assert sorted(after) == list(range(TRIALS))
        [journal] = elsewhere.workspace(job_id).glob("*/computed")
        assert not set(before) & {int(n) for n in journal.read_text().split()}, "nothing is computed twice"
    finally:
        for fleet in fleets:
            fleet.end()


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

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def fleet(settings: Settings) -> Iterator[Fleet]:
    fleet = Fleet(settings)
    yield fleet
    fleet.end()


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
    [journal] = settings.workspace(job_id).glob("*/computed")
    computed = [int(n) for n in journal.read_text().split()]
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

"""Jobs in a real database as a search would have left them, written through the real ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search.records import Progress, Trial
from search.spec import JobSpec
from service.blobs import BlobStore
from service.database import Database
from service.leases import Lease, Leases
from service.ledger import SqlLedger
from tests.service import sample_job
from tests.service.rows import LIMITS, add_inputs, jobs_of

WORKER = "host:4242"
WINNER_BYTES = b"an exported winner"
BASELINE_BYTES = b"an exported original"


def add_job(database: Database, **change: Any) -> str:
    model, dataset = add_inputs(database)
    row = jobs_of(database).create(JobSpec.model_validate({**sample_job.spec(model, dataset), **change}), LIMITS)
    job_id: str = row.id
    return job_id


def coordinator(database: Database, data_dir: Path, lease_s: float = 600.0) -> SqlLedger:
    """The ledger of the oldest queued job."""
    lease = Leases(database).claim(WORKER, lease_s)
    assert isinstance(lease, Lease)
    return SqlLedger(database, BlobStore(data_dir / "blobs"), lease)


def search_some(ledger: SqlLedger, rows: list[Trial], *, stage: str = "search", eta_s: float | None = 84.0) -> None:
    """Everything that a running search writes."""
    ledger.put_baseline(sample_job.BASELINE)
    ledger.log("info", "profile: metric 0.8802, 0.813 ms, 1.16 MB")
    for row in rows:
        ledger.put_trial(row)
    ledger.log("warning", "latency is noisy on this machine; 2 of 20 rounds were repeated", trial=rows[-1].number)
    ledger.put_front([t.number for t in rows if t.on_front])
    if any(t.feasible for t in rows):
        ledger.put_best(sample_job.best(rows))
    gated = sum(t.state == "gated" for t in rows)
    ledger.put_progress(
        Progress(stage=stage, finished=len(rows), gated=gated, planned=40, elapsed_s=210.0, eta_s=eta_s)
    )


def add_finished(database: Database, data_dir: Path, *, report: dict[str, Any] | None = None, **change: Any) -> str:
    """A succeeded job with artifacts and a report. No other job may be queued."""
    job_id = add_job(database, **change)
    ledger = coordinator(database, data_dir)
    rows = sample_job.trials()
    search_some(ledger, rows, stage="confirm", eta_s=None)
    folder = data_dir / "exported"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "winner.onnx").write_bytes(WINNER_BYTES)
    (folder / "baseline.onnx").write_bytes(BASELINE_BYTES)
    ledger.put_artifact("winner", folder / "winner.onnx")
    ledger.put_artifact("baseline", folder / "baseline.onnx")
    ledger.log("info", "confirmed on 10,000 test rows: 0.8655")
    ledger.finish("succeeded", outcome="feasible", reason=None, report=report or sample_job.report(rows))
    return job_id


def add_running(database: Database, data_dir: Path, rows: list[Trial], **change: Any) -> tuple[str, SqlLedger]:
    """A running job and the ledger that goes on with it. No other job may be queued."""
    job_id = add_job(database, **change)
    ledger = coordinator(database, data_dir)
    search_some(ledger, rows)
    return job_id, ledger

"""Whole jobs with real processes, real training and the real runtime, on handwritten digits."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq
import pytest
from PIL import Image

from compressors.recipe import Recipe
from search import run
from search.ledger import LeaseLost
from search.records import Trial
from search.run import run_job
from search.work import Failed, Result, Work
from tests.search.conftest import Digits
from tests.search.memory_ledger import MemoryLedger


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the jobs of this file, as by the jobs of a worker."""
    return tmp_path_factory.mktemp("cache")


def accuracy(model: Path, rows: Path) -> float:
    """Scored without any of our code."""
    table = pq.read_table(rows).to_pydict()
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    hits = 0
    for content, label in zip(table["image"], table["label"], strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=np.float32) / 255
        [logits] = session.run(None, {session.get_inputs()[0].name: pixels.transpose(2, 0, 1)[None]})
        hits += int(np.argmax(logits) == label)
    return hits / len(table["label"])


def test_a_job_ends_feasible_and_its_file_scores_what_is_reported(digits: Digits, tmp_path: Path, cache: Path) -> None:
    inputs = digits.job(tmp_path / "job", cache)
    ledger = MemoryLedger(tmp_path / "out")
    run_job(inputs, ledger)
    assert ledger.finished is not None, ledger.logs
    assert (ledger.finished["state"], ledger.finished["outcome"]) == ("succeeded", "feasible"), ledger.logs
    report = ledger.finished["report"]
    winner = report["winner"]
    assert winner["size_ratio"] <= 0.09
    assert winner["size_bytes"] == (tmp_path / "out" / "winner.onnx").stat().st_size
    assert accuracy(tmp_path / "out" / "winner.onnx", digits.test) == pytest.approx(winner["test_metric"], abs=1e-7)
    assert accuracy(tmp_path / "out" / "baseline.onnx", digits.test) == pytest.approx(
        report["test"]["baseline_metric"], abs=1e-7
    )
    assert report["parity"]["agreement"] > 0.9
    assert not [t for t in ledger.rows.values() if t.state == "running"]
    assert not [t for t in ledger.rows.values() if t.state == "failed"], ledger.logs
    gated = [t for t in ledger.rows.values() if t.state == "gated"]
    assert all(t.fidelity is None for t in gated), "what misses the budget is never tuned"
    for trial in ledger.rows.values():
        assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial
        if trial.recipe is None:  # the search was over before its shape was known
            assert trial.reason == "the search ended before it did"
            continue
        assert Recipe.from_json(trial.recipe).to_json() == trial.recipe
    assert len(json.dumps(report, allow_nan=False)) < 300_000
    told = report["explanation"]
    assert told["spending"]["tuned_over_budget"] == []
    assert told["spending"]["feasible_tuning_s"] > 0
    assert told["curves"]["hypervolume"][-1][1] == pytest.approx(told["front"]["hypervolume"], abs=1e-4)
    assert [m["trial"] for m in told["front"]["members"]] == list(ledger.front)
    assert sum(line["count"] for line in told["rejected"]["lines"]) == len(ledger.rows) - 1, "all but the winner"
    assert {row["name"] for row in told["layers"]["rows"]} >= {group["name"] for group in report["groups"]}
    assert told["prices"]["latency"]["unit"] == "ms"
    assert told["importance"]["trials"] >= 0
    assert ledger.best is not None
    assert ledger.best.test_metric == winner["test_metric"]
    assert set(ledger.front) <= set(ledger.rows)


def test_an_impossible_budget_names_the_limit(digits: Digits, tmp_path: Path, cache: Path) -> None:
    inputs = digits.job(tmp_path / "job", cache, budget={"size_ratio": 0.01}, search={"max_seconds": 30, "parallel": 2})
    ledger = MemoryLedger(tmp_path / "out")
    run_job(inputs, ledger)
    assert ledger.finished is not None
    assert (ledger.finished["state"], ledger.finished["outcome"]) == ("succeeded", "nearest_miss"), ledger.finished
    [limit] = ledger.finished["report"]["limits"]
    assert limit["field"] == "size_ratio"
    assert limit["excess"] == pytest.approx(limit["value"] - 0.01)
    assert "set size_ratio to at least" in limit["explanation"]
    assert (tmp_path / "out" / "winner.onnx").exists()


def test_cancelling_keeps_what_was_found(digits: Digits, tmp_path: Path, cache: Path) -> None:
    ledger = _Wishing(tmp_path / "out", "cancel", after=1)
    began = time.monotonic()
    search = {"max_seconds": 300, "parallel": 2}
    run_job(digits.job(tmp_path / "job", cache, search=search, budget={"size_ratio": 0.08}), ledger)
    assert time.monotonic() - began < 100
    assert ledger.finished is not None
    assert ledger.finished["state"] == "cancelled"
    assert not [t for t in ledger.rows.values() if t.state == "running"]
    assert (tmp_path / "out" / "winner.onnx").exists()


def test_a_paused_job_goes_on(digits: Digits, tmp_path: Path, cache: Path) -> None:
    ledger = _Wishing(tmp_path / "out", "pause", after=1)
    search = {"max_seconds": 90, "parallel": 2, "max_trials": 6}
    run_job(digits.job(tmp_path / "job", cache, search=search, budget={"size_ratio": 0.08}), ledger)
    assert ledger.finished is not None
    assert ledger.finished["state"] == "paused"
    before = dict(ledger.rows)
    assert not [t for t in before.values() if t.state == "running"]
    assert (tmp_path / "out" / "winner.onnx").exists(), "what was found can be fetched while it is paused"
    ledger.wish, ledger.after, ledger.finished, ledger.before = "run", 10**9, None, 12.0
    run_job(digits.job(tmp_path / "job", cache, search=search, budget={"size_ratio": 0.08}), ledger)
    assert ledger.finished is not None
    assert ledger.finished["state"] == "succeeded", ledger.finished
    for number, trial in before.items():
        if trial.metric is not None and trial.fidelity is not None:
            after = ledger.rows[number].fidelity
            assert after is not None
            assert after.samples >= trial.fidelity.samples


def test_a_lost_lease_stops_the_search(digits: Digits, tmp_path: Path, cache: Path) -> None:
    class Lost(MemoryLedger):
        def put_trial(self, trial: Trial) -> None:
            raise LeaseLost

    ledger = Lost(tmp_path / "out")
    with pytest.raises(LeaseLost):
        run_job(digits.job(tmp_path / "job", cache), ledger)
    assert ledger.finished is None
    assert not [p for p in multiprocessing.active_children() if p.name == "bantam-evaluator"]


def test_killed_evaluators_cost_a_retry_not_the_job(digits: Digits, tmp_path: Path, cache: Path) -> None:
    ledger = MemoryLedger(tmp_path / "out")

    def kill_all() -> None:
        until = time.monotonic() + 60
        while not any(t.origin not in ("cheap", "floor") for t in list(ledger.rows.values())):
            if time.monotonic() > until:
                return
            time.sleep(0.05)
        for process in multiprocessing.active_children():
            if process.name == "bantam-evaluator" and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_all)
    killer.start()
    run_job(digits.job(tmp_path / "job", cache, budget={"size_ratio": 0.08}), ledger)
    killer.join()
    assert ledger.finished is not None
    assert ledger.finished["outcome"] == "feasible", ledger.finished
    assert any("signal 9" in message for _, message, _ in ledger.logs), ledger.logs


class _Hanging:
    """An executor whose first work never ends by itself, and whose second fails."""

    slots = free = 1

    def __init__(self) -> None:
        self.submitted: list[Work] = []
        self.aborted: list[Work] = []
        self.closed = False

    def submit(self, work: Work) -> None:
        self.submitted.append(work)
        self.free = 0

    def poll(self, timeout_s: float) -> list[tuple[Work, Result]]:
        if len(self.submitted) == 1 and not self.aborted:
            time.sleep(0.01)
            return []
        self.free = 1
        return [(self.submitted[-1], Failed(reason="ended", retry=len(self.submitted) == 1))]

    def abort(self, work: Work) -> None:
        self.aborted.append(work)

    def close(self) -> None:
        self.closed = True


def test_a_work_that_hangs_is_cut_off_and_tried_again(
    digits: Digits, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PATIENCE_SECONDS", 0.2)
    executor, ledger = _Hanging(), MemoryLedger(tmp_path / "out")
    run_job(digits.job(tmp_path / "job", cache), ledger, make_executor=lambda _: executor)
    assert executor.aborted == executor.submitted[:1]
    assert len(executor.submitted) == 2
    assert executor.closed
    assert any("takes too long" in message for _, message, _ in ledger.logs)
    assert ledger.finished is not None
    assert ledger.finished["state"] == "failed"


class _Wishing(MemoryLedger):
    """Wants something else as soon as `after` trials are scored."""

    def __init__(self, folder: Path, wish: str, after: int) -> None:
        super().__init__(folder)
        self.later, self.after = wish, after

    def put_trial(self, trial: Trial) -> None:
        super().put_trial(trial)
        if sum(1 for t in self.rows.values() if t.metric is not None) >= self.after:
            self.wish = self.later  # type: ignore[assignment]

"""Each objective on a real job, from the first measurement to the answer: ranking, front, confirmation, report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from search.hypervolume import Box
from search.records import Trial
from search.run import run_job
from search.spec import Budget
from tests.search.memory_ledger import MemoryLedger
from tests.search.tiny_jobs import tiny_job

BUDGET = {"max_metric_drop": 0.06}
SEARCH = {"max_seconds": 9, "parallel": 2, "max_trials": 12}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that the model is profiled once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("objective", ["latency", "size", "pareto"])
def test_an_objective_is_what_the_answer_is_best_at(objective: str, tmp_path: Path, cache: Path) -> None:
    job = tiny_job("classification", tmp_path / "job", objective=objective, budget=BUDGET, search=SEARCH)
    ledger = MemoryLedger(tmp_path / "out")
    run_job(replace(job, cache=cache), ledger)
    assert ledger.finished is not None
    assert (ledger.finished["state"], ledger.finished["outcome"]) == ("succeeded", "feasible"), ledger.logs
    report, baseline = ledger.finished["report"], ledger.baseline
    assert baseline is not None
    winner = ledger.rows[report["winner"]["trial"]]
    inside = [t for t in ledger.rows.values() if t.feasible and t.metric is not None]
    assert winner in inside
    box = Box.of(baseline, Budget.model_validate(BUDGET))
    best = max(_worth(t, objective, box) for t in inside)
    assert _worth(winner, objective, box) == pytest.approx(best), "of all that are inside the budget"
    assert baseline.metric - (winner.metric or 0.0) <= BUDGET["max_metric_drop"]
    assert ledger.best is not None
    assert ledger.best.trial == winner.number
    _front_is_whole(report, ledger, box)
    kept = {f"trial-{n}.onnx" for n in ledger.front} if objective == "pareto" else set()
    assert {path.name for path in (tmp_path / "out").glob("trial-*")} == kept
    ort.InferenceSession(tmp_path / "out" / "winner.onnx")


def _worth(trial: Trial, objective: str, box: Box) -> float:
    assert trial.latency is not None
    assert trial.size_bytes is not None
    if objective == "pareto":
        return box.volume([trial])
    return -trial.latency.ratio if objective == "latency" else -float(trial.size_bytes)


def _front_is_whole(report: dict[str, Any], ledger: MemoryLedger, box: Box) -> None:
    """Recipe and measurements of every member, and the volume that they have together."""
    told = report["explanation"]["front"]
    members: list[Trial] = [ledger.rows[n] for n in ledger.front]
    assert [m["trial"] for m in told["members"]] == list(ledger.front), "fastest first"
    assert report["front"] == sorted(ledger.front)
    assert told["hypervolume"] == pytest.approx(box.volume(members), abs=1e-6)
    assert [(m["recipe"], m["metric"]) for m in told["members"]] == [(t.recipe, t.metric) for t in members]
    assert report["winner"]["trial"] in report["front"]

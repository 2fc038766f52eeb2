"""A job's trials as an Optuna study: values, states, parameters and constraints come over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from service import export_study
from service.export_study import knobs_of, open_storage, write_study
from tests.service import sample_job, seeded
from tests.service.api import RunningApi


def rows() -> list[dict[str, Any]]:
    knobs = [{"size": 0.1 * i, "depth": i, "importance": "l2", "share": {"conv": i % 2 == 0}} for i in range(8)]
    found = [replace(t, knobs=k) for t, k in zip(sample_job.trials(8), knobs, strict=True)]
    found[3] = replace(found[3], state="failed", metric=None)
    found[6] = replace(found[6], state="running")
    return [t.to_json() for t in found]


@pytest.mark.parametrize("name", ["study.db", "study.log"])
def test_a_study_holds_what_the_trials_hold(tmp_path: Path, name: str) -> None:
    trials = rows()
    write_study(trials, open_storage(tmp_path / name), "s")
    study = optuna.load_study(study_name="s", storage=open_storage(tmp_path / name))
    assert len(study.trials) == 7  # the running one is left out
    by_number = {t.user_attrs["bantam_number"]: t for t in study.trials}
    assert by_number[2].values == [trials[2]["metric"], trials[2]["latency"]["ratio"], trials[2]["size_ratio"]]
    assert by_number[2].params == {"size": pytest.approx(0.2), "depth": 2, "importance": "l2", "share.conv": True}
    assert by_number[3].state is TrialState.FAIL
    assert by_number[4].state is TrialState.PRUNED  # rejected before it had a metric
    assert study.metric_names == ["metric", "latency_ratio", "size_ratio"]
    feasible = {t["number"] for t in trials if t["feasible"]}
    assert {t.user_attrs["bantam_number"] for t in study.best_trials} <= feasible


def test_lists_become_text_and_nulls_vanish() -> None:
    trial = {"knobs": {"layers": ["a", "b"], "none": None, "deep": {"x": {"y": 1.5}}}}
    assert knobs_of(trial) == {"layers": '["a", "b"]', "deep.x.y": 1.5}


def test_the_command_reads_the_service(
    sqlite_api: RunningApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeded.add_finished(sqlite_api.database, sqlite_api.settings.data_dir)
    monkeypatch.setenv("BANTAM_URL", sqlite_api.url)
    monkeypatch.setenv("BANTAM_TOKEN", sqlite_api.token)
    target = str(tmp_path / "study.db")
    assert export_study.main(["last", "--output", target, "--study-name", "mine"]) == 0
    assert "wrote 24 trials" in capsys.readouterr().out
    assert export_study.main(["last", "--output", target, "--study-name", "mine"]) == 1
    assert "another --output" in capsys.readouterr().err
    assert export_study.main(["nope", "--output", target]) == 2

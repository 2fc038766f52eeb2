"""Tuning a candidate in the score stage: losses on inner layers and further teachers reach it, rung after rung."""

from __future__ import annotations

import functools
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compressors.recipe import Distillation, Recipe, WidthScaling
from compressors.training import Checkpoint, tune
from search import stage_confirm, stage_score
from search.inputs import JobInputs
from search.kept_files import KeptFiles
from search.stage_confirm import confirm
from search.stage_score import checkpoint, checkpoint_key, score, tuned_model
from search.stage_soup import float_metric, soup
from search.work import ConfirmWork, ScoreWork, SoupWork
from search.workbench import Workbench
from tests.search.tiny_jobs import tiny_job


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> JobInputs:
    job = tiny_job("classification", tmp_path_factory.mktemp("job"))
    return replace(job, models={"same": job.model})


@pytest.fixture
def bench(inputs: JobInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """Without a profile, whose latencies take their time; nothing here looks at the error of the metric."""
    bench = Workbench(replace(inputs, workspace=tmp_path), threads=1)
    monkeypatch.setattr(stage_score, "baseline_scores", lambda _: np.zeros(len(bench.splits.validation.rows)))
    return bench


def test_a_taught_candidate_is_tuned_over_two_rungs(bench: Workbench) -> None:
    layer = bench.graph.groups[0].name
    taught = Recipe(
        (
            WidthScaling(factor=0.5),
            Distillation(learning_rate=0.01, features=(layer,), relation_weight=1.0, teachers=("same",)),
        )
    )
    plain = Recipe((WidthScaling(factor=0.5), Distillation(learning_rate=0.01)))
    for trial, recipe in enumerate((taught, plain)):
        for rung, (start, stop) in enumerate(((0, 200), (200, 400))):
            scored = score(bench, ScoreWork(trial=trial, recipe=recipe, rung=rung, start=start, stop=stop))
            assert scored.samples == stop
        state = checkpoint(bench, trial).load(checkpoint_key(recipe))
        assert state is not None
        assert state["model"].keys() == bench.shaped(recipe).state_dict().keys()
    one, other = (tuned_model(bench, trial, recipe) for trial, recipe in enumerate((taught, plain)))
    assert not torch.equal(one.get_parameter(f"{layer}.weight"), other.get_parameter(f"{layer}.weight"))
    files = [onnx.load(bench.inputs.workspace / "artifacts" / f"trial-{trial}.onnx") for trial in (0, 1)]
    assert [n.op_type for n in files[0].graph.node] == [n.op_type for n in files[1].graph.node]


def test_a_run_that_was_cut_off_goes_on_with_fresh_adapters(bench: Workbench) -> None:
    """The optimiser's state, adapters' momentum included, fits the groups that are made anew."""
    layer = bench.graph.groups[0].name
    recipe = Recipe((WidthScaling(factor=0.5), Distillation(learning_rate=0.01, features=(layer,))))
    saved = checkpoint(bench, 7)
    save = Checkpoint.save

    def cut_off(self: Checkpoint, *state: Any) -> None:
        save(self, *state)
        raise KeyboardInterrupt

    work = ScoreWork(trial=7, recipe=recipe, rung=0, start=0, stop=400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "save", cut_off)
        patch.setattr(stage_score, "tune", functools.partial(tune, keep_every_s=-1.0))
        with pytest.raises(KeyboardInterrupt):
            score(bench, work)
    state = saved.load(checkpoint_key(recipe))
    assert state is not None
    assert 0 < state["run"][2] < 400
    assert len(state["optimizer"]["param_groups"]) == 4
    assert score(bench, work).samples == 400


@pytest.mark.parametrize(("best", "stays"), [(2.0, True), (-1.0, False), (None, False)])
def test_more_tuning_never_makes_a_candidate_worse(bench: Workbench, best: float | None, stays: bool) -> None:
    recipe = Recipe((WidthScaling(factor=0.5), Distillation(learning_rate=0.05)))
    first = score(bench, ScoreWork(trial=11, recipe=recipe, rung=1, start=0, stop=800))
    path = bench.inputs.workspace / first.artifact
    before, state = path.read_bytes(), checkpoint(bench, 11).path.read_bytes()
    second = score(bench, ScoreWork(trial=11, recipe=recipe, rung=2, start=800, stop=1600, best=best))
    assert second.rung == 2
    assert (path.read_bytes() == before) is stays
    assert (checkpoint(bench, 11).path.read_bytes() == state) is stays
    assert second.samples == (800 if stays else 1600)
    assert (second.sha256, second.metric) == (first.sha256, first.metric) if stays else second.sha256 != first.sha256
    assert not [p for p in path.parent.iterdir() if ".before-" in p.name or ".kept-" in p.name]


def test_what_an_interrupted_run_put_aside_is_what_counts(tmp_path: Path) -> None:
    file, missing = tmp_path / "a.onnx", tmp_path / "b.pt"
    file.write_text("before")
    KeptFiles(2, file, missing)
    file.write_text("half tuned")
    missing.write_text("half tuned")
    again = KeptFiles(2, file, missing)
    assert again.holds(file)
    assert not again.holds(missing)
    again.restore()
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]
    assert file.read_text() == "before"


def test_tuned_copies_are_averaged_into_a_candidate_that_is_never_worse_in_float(bench: Workbench) -> None:
    recipes = [Recipe((WidthScaling(factor=0.75), Distillation(learning_rate=rate))) for rate in (0.01, 0.02)]
    for trial, recipe in enumerate(recipes):
        score(bench, ScoreWork(trial=trial, recipe=recipe, rung=1, start=0, stop=1200))
    scored = soup(bench, SoupWork(trial=2, members=tuple(enumerate(recipes))))
    assert (bench.inputs.workspace / scored.artifact).stat().st_size == scored.size_bytes
    made = tuned_model(bench, 2, recipes[0])
    members = [tuned_model(bench, trial, recipe) for trial, recipe in enumerate(recipes)]
    assert float_metric(bench, made) >= max(float_metric(bench, m) for m in members)
    weights = [m.state_dict() for m in (made, *members)]
    name = next(n for n, p in made.named_parameters() if p.dim() == 2)
    mean = (weights[1][name] + weights[2][name]) / 2
    assert any(torch.allclose(weights[0][name], w) for w in (weights[1][name], weights[2][name], mean))


def test_a_winner_whose_file_stayed_on_another_host_is_made_again(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe((WidthScaling(factor=0.5), Distillation(learning_rate=0.02)))
    tuned = score(bench, ScoreWork(trial=3, recipe=recipe, rung=1, start=0, stop=2000))
    baseline = bench.inputs.workspace / "kept.onnx"
    (bench.inputs.workspace / tuned.artifact).rename(baseline)
    shutil.rmtree(bench.inputs.workspace / "checkpoints")
    # Latencies would take their time, and are not looked at here.
    made_up = SimpleNamespace(
        p50_ms=1.0,
        p90_ms=1.0,
        ratio=1.0,
        ratio_ci=(1.0, 1.0),
        runs=1,
        noisy=False,
        baseline_p50_ms=1.0,
        baseline_p90_ms=1,
    )
    monkeypatch.setattr(stage_confirm, "measure_for_publication", lambda *_: made_up)
    monkeypatch.setattr(stage_confirm, "baseline_file", lambda _: baseline)
    confirmed = confirm(bench, ConfirmWork(trial=3, recipe=recipe, rung=1, samples=tuned.samples))
    file = bench.inputs.workspace / confirmed.artifact
    assert hashlib.sha256(file.read_bytes()).hexdigest() == confirmed.sha256
    assert confirmed.metric == pytest.approx(tuned.metric, abs=0.05)
    state = checkpoint(bench, 3).load(checkpoint_key(recipe))
    assert state is not None
    assert state["run"][2] == 2000, "tuned as far as it had been"
    assert confirmed.agreement > 0.9, "the checkpoint is that of the file"

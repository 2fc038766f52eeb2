"""Score stage: tune a candidate up to its rung, export it, reload the file and score that on the validation split."""

from __future__ import annotations

import functools
import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import fx

from compressors.artifact import build_artifact
from compressors.onnx_export import serialize
from compressors.pipeline import run_recipe
from compressors.recipe import Distillation, Recipe
from compressors.training import Checkpoint, Run, make_optimizer, tune
from compressors.tuning_plan import tuning_plan
from search.kept_files import KeptFiles
from search.stage_clock import StageClock
from search.stage_profile import baseline_scores
from search.work import Scored, ScoreWork
from search.workbench import Workbench


def artifact_path(trial: int) -> str:
    """Where a trial's exported file lies, relative to the job's workspace."""
    return f"artifacts/trial-{trial}.onnx"


def checkpoint(bench: Workbench, trial: int) -> Checkpoint:
    return Checkpoint(bench.inputs.workspace / "checkpoints" / f"trial-{trial}.pt")


def score(bench: Workbench, work: ScoreWork) -> Scored:
    """Tunes from `work.start` to `work.stop` samples if they differ. Without tuning the result is cached.

    Where more tuning has made a candidate worse than `work.best`, the file that it had before is its file again.
    """
    clock = StageClock()
    path = bench.inputs.workspace / artifact_path(work.trial)
    path.parent.mkdir(parents=True, exist_ok=True)
    if work.stop <= work.start:
        _untuned(bench, work.recipe, path, clock)
        return scored(bench, work.trial, clock, rung=work.rung, samples=work.start)
    kept = KeptFiles(work.rung, path, checkpoint(bench, work.trial).path)
    model, seen, speed = _tuned(bench, work, clock)
    write_artifact(bench, model, work.recipe, path, clock)
    found = scored(bench, work.trial, clock, rung=work.rung, samples=seen, speed=speed)
    if work.best is None or found.metric >= work.best or not kept.holds(path):  # on another host there is nothing
        kept.forget()
        return found
    kept.restore()
    return scored(bench, work.trial, clock, rung=work.rung, samples=work.start, speed=speed)


def scored(
    bench: Workbench, trial: int, clock: StageClock, *, rung: int, samples: int, speed: float | None = None
) -> Scored:
    """The result for a trial whose file is written."""
    path = bench.inputs.workspace / artifact_path(trial)
    metric, error = _validate(bench, path, clock)
    content = path.read_bytes()
    return Scored(
        trial=trial,
        rung=rung,
        metric=metric,
        metric_error=error,
        samples=samples,
        speed=speed,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        artifact=artifact_path(trial),
        stages=clock.stages,
    )


def tuned_model(bench: Workbench, trial: int, recipe: Recipe) -> fx.GraphModule:
    """The model behind a scored trial's file, in eval mode: from its checkpoint, or as it was before any tuning."""
    model = bench.shaped(recipe)
    state = checkpoint(bench, trial).load(checkpoint_key(recipe))
    if state is not None:
        model.load_state_dict(state["model"])
    elif recipe.around_tuning()[0].steps:
        bench.reestimate(model)
    model.eval()
    return model


def checkpoint_key(recipe: Recipe) -> str:
    """Shape and tuning of a candidate, whatever it has seen so far."""
    return Recipe(tuple(replace(s, samples=0) if isinstance(s, Distillation) else s for s in recipe.steps)).key


def _untuned(bench: Workbench, recipe: Recipe, path: Path, clock: StageClock) -> None:
    """Everything but tuning: the same for every candidate that differs in its tuning only."""
    steps = Recipe(tuple(s for s in recipe.steps if not isinstance(s, Distillation)))
    key = {**bench.model_key, **bench.data_key, "recipe": steps.to_json()}

    def compute(folder: Path) -> dict[str, Any]:
        with clock.stage("shape"):
            model = bench.shaped(recipe)
        with clock.stage("batch_norm"), bench.slot.shared():
            if recipe.around_tuning()[0].steps:
                bench.reestimate(model)
            model.eval()
        write_artifact(bench, model, recipe, folder / "artifact.onnx", clock)
        return {}

    _, entry, cached = bench.cache.get_or_compute("untuned", key, compute)
    if cached:
        clock.found("export")
    _replace(path, (entry / "artifact.onnx").read_bytes())


def _tuned(bench: Workbench, work: ScoreWork, clock: StageClock) -> tuple[fx.GraphModule, int, float | None]:
    """(model, samples seen in all, samples per second). Goes on from a checkpoint, also from the middle of a run."""
    config = work.recipe.distillation
    assert config is not None
    with clock.stage("shape"):
        model = bench.shaped(work.recipe)
    saved, key = checkpoint(bench, work.trial), checkpoint_key(work.recipe)
    state = saved.load(key)
    run = Run(start=work.start, stop=work.stop, seen=work.start)
    plan = tuning_plan(model, config, bench.context)
    optimizer = make_optimizer(model, config, plan.further)
    if state is None:
        run.start = run.seen = 0
        with clock.stage("batch_norm"), bench.slot.shared():
            bench.reestimate(model)
    else:
        model.load_state_dict(state["model"])
        start, _, seen = state["run"]
        if start == work.start and seen > start and state["optimizer"] is not None:
            run.seen = min(seen, work.stop)
            optimizer.load_state_dict(state["optimizer"])
        else:  # the end of an earlier rung
            run.start = run.seen = seen
    before = run.seen
    with clock.stage("tune"):
        outcome = tune(
            model,
            bench.task,
            functools.partial(bench.tuning_batch, taught=config.reads_original_outputs),
            len(bench.splits.tuning.rows),
            config,
            run,
            optimizer,
            seed=bench.seed,
            clock=time.monotonic,
            deadline=None if work.seconds is None else time.monotonic() + work.seconds,
            keep=lambda: saved.save(model, optimizer, run, key),
            chunk=bench.slot.shared,
            objective=plan.objective,
        )
    run.start = run.seen
    saved.save(model, None, run, key)
    seen = outcome.seen - before
    return model, outcome.seen, seen / outcome.seconds if seen else None


def write_artifact(bench: Workbench, model: fx.GraphModule, recipe: Recipe, path: Path, clock: StageClock) -> None:
    """Does what the recipe does after tuning, exports, and writes the file by rename."""
    with clock.stage("realise"), bench.slot.shared():
        realised = run_recipe(model, recipe.around_tuning()[1], replace(bench.context, graph=None))
    with clock.stage("export"):
        _replace(path, serialize(build_artifact(realised, bench.example)))


def _replace(path: Path, content: bytes) -> None:
    """By rename: the coordinator may be copying the file that an earlier rung wrote."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _validate(bench: Workbench, path: Path, clock: StageClock) -> tuple[float, float]:
    """(metric, standard error of its difference from the baseline's), both on the validation split."""
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    key = {"artifact": content, **bench.data_key}

    def compute(folder: Path) -> dict[str, Any]:
        with clock.stage("score"):
            evaluation = bench.evaluate(path, bench.splits.validation)
            return {"metric": evaluation.metric, "error": evaluation.error_against(baseline_scores(bench))}

    value, _, cached = bench.cache.get_or_compute("score", key, compute)
    if cached:
        clock.found("score")
    return value["metric"], value["error"]

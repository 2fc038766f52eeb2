"""Confirm stage: the winner's file, reloaded, measured longer, compared with PyTorch, and scored on the test split."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import torch

from compressors.onnx_runtime import kernel_summary
from search.measuring import measure_for_publication
from search.records import Latency
from search.stage_clock import StageClock
from search.stage_profile import BASELINE_FILE, baseline_file
from search.stage_score import artifact_path, score, tuned_model
from search.work import Confirmed, ConfirmWork, ScoreWork
from search.workbench import Workbench

PARITY_ROWS = 256


def confirm(bench: Workbench, work: ConfirmWork) -> Confirmed:
    """Also leaves the uncompressed model's export in the workspace, for comparison by anyone."""
    clock = StageClock()
    path = bench.inputs.workspace / artifact_path(work.trial)
    if not path.exists():
        with clock.stage("restore"):
            _make_again(bench, work)
    baseline = bench.inputs.workspace / BASELINE_FILE
    shutil.copyfile(baseline_file(bench), baseline)
    with clock.stage("confirm_latency"):
        measured = measure_for_publication(bench, path, baseline)
    with clock.stage("confirm_validation"):
        metric = bench.evaluate(path, bench.splits.validation, alone=True).metric
    with clock.stage("parity"):
        max_error, agreement = _parity(bench, work, path)
    with clock.stage("test"):
        test = bench.evaluate(path, bench.splits.test, alone=True)
        reference = bench.evaluate(baseline, bench.splits.test, alone=True)
    content = path.read_bytes()
    return Confirmed(
        trial=work.trial,
        metric=metric,
        test_metric=test.metric,
        baseline_test_metric=reference.metric,
        test_metric_error=test.error_against(reference.scores),
        test_rows=len(bench.splits.test.rows),
        latency=Latency(
            p50_ms=measured.p50_ms,
            p90_ms=measured.p90_ms,
            ratio=measured.ratio,
            ratio_ci=measured.ratio_ci,
            repeats=measured.runs,
            noisy=measured.noisy,
        ),
        baseline_latency_ms=measured.baseline_p50_ms,
        baseline_p90_ms=measured.baseline_p90_ms,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        artifact=artifact_path(work.trial),
        max_abs_error=max_error,
        agreement=agreement,
        kernels=dict(kernel_summary(path)),
        stages=clock.stages,
    )


def _make_again(bench: Workbench, work: ConfirmWork) -> None:
    """The file, and the checkpoint behind it, of a trial that ran on a host whose workspace is not ours.

    Tuned in one go where the first time took several rungs: what is confirmed is this file, by its own numbers.
    """
    samples = 0 if work.recipe.distillation is None else work.samples
    score(bench, ScoreWork(trial=work.trial, recipe=work.recipe, rung=work.rung, start=0, stop=samples))


def _parity(bench: Workbench, work: ConfirmWork, path: Path) -> tuple[float, float]:
    """(largest absolute difference, share of equal answers) between the tuned PyTorch model and the file."""
    part = bench.splits.validation
    session = bench.runtime.load(path, os.cpu_count() or 1)
    model = tuned_model(bench, work.trial, work.recipe)
    chosen = part.rows[:PARITY_ROWS]
    largest = same = 0.0
    for rows in bench.batches(chosen):
        inputs = bench.rows(part.dataset).inputs(rows)
        with torch.no_grad(), bench.slot.shared():
            expected = model(*bench.tensors(inputs)).float().numpy()
            actual = session.run(inputs)[0]
        largest = max(largest, float(np.abs(expected - actual).max()))
        same += bench.task.agreement(expected, actual) * len(rows)
    return largest, same / len(chosen)

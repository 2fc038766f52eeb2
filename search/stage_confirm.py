"""Confirm stage: the winner's file, reloaded, measured longer, compared with PyTorch, and scored on the test split."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import torch

from compressors.onnx_runtime import kernel_summary
from compressors.tasks import standard_error
from search.measuring import measure_for_publication
from search.records import Latency
from search.stage_clock import StageClock
from search.stage_profile import BASELINE_FILE, baseline_file
from search.stage_score import artifact_path, tuned_model
from search.work import Confirmed, ConfirmWork
from search.workbench import Array, Workbench

PARITY_ROWS = 256


def confirm(bench: Workbench, work: ConfirmWork) -> Confirmed:
    """Also leaves the uncompressed model's export in the workspace, for comparison by anyone."""
    clock = StageClock()
    path = bench.inputs.workspace / artifact_path(work.trial)
    baseline = bench.inputs.workspace / BASELINE_FILE
    shutil.copyfile(baseline_file(bench), baseline)
    with clock.stage("confirm_latency"):
        measured = measure_for_publication(bench, path, baseline)
    with clock.stage("confirm_validation"):
        outputs, target = bench.predict(path, bench.splits.validation, alone=True)
        metric = bench.task.metric(outputs, target)
    with clock.stage("parity"):
        max_error, agreement = _parity(bench, work, outputs)
    with clock.stage("test"):
        test, test_target = bench.predict(path, bench.splits.test, alone=True)
        reference, _ = bench.predict(baseline, bench.splits.test, alone=True)
        difference = bench.task.scores(test, test_target) - bench.task.scores(reference, test_target)
    content = path.read_bytes()
    return Confirmed(
        trial=work.trial,
        metric=metric,
        test_metric=bench.task.metric(test, test_target),
        baseline_test_metric=bench.task.metric(reference, test_target),
        test_metric_error=standard_error(difference),
        test_rows=len(test_target),
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


def _parity(bench: Workbench, work: ConfirmWork, outputs: Array) -> tuple[float, float]:
    """(largest absolute difference, share of equal answers) between the tuned PyTorch model and the file."""
    part = bench.splits.validation
    rows = part.rows[:PARITY_ROWS]
    model = tuned_model(bench, work.trial, work.recipe)
    with torch.no_grad(), bench.slot.shared():
        expected = model(*bench.tensors(bench.rows(part.dataset).inputs(rows))).float().numpy()
    actual = outputs[: len(rows)]
    agreement = float((expected.argmax(axis=-1) == actual.argmax(axis=-1)).mean())
    return float(np.abs(expected - actual).max()), agreement

"""Profile stage: the baseline's export, cost and metric, its groups of channels, and how fast it can be tuned."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressors.folding import folded_copy
from compressors.layer_shapes import layer_shapes
from compressors.onnx_export import check_parity, export_onnx, serialize
from compressors.recipe import Distillation
from compressors.residual_blocks import find_blocks
from compressors.runtime import Session
from compressors.static_quantization import integer_layer_names
from compressors.training import BATCH, Run, make_optimizer, tune
from search.measuring import measure_quietly
from search.profile import Group, Profile
from search.records import Baseline, Stage
from search.work import Profiled
from search.workbench import Array, Workbench, clone

PARITY_TOLERANCE = 1e-3  # largest difference between the program and its export, relative to the largest output
SPEED_STEPS = 3
OUTPUT_ROWS = 100  # looked at to see whether the outputs are what the task takes them for

BASELINE_FILE = "baseline.onnx"
SCORES_FILE = "scores.npy"


def profile(bench: Workbench) -> Profiled:
    """Cached by model, data, target and machine."""
    began = time.monotonic()
    value, _, cached = _entry(bench)
    return Profiled(
        profile=Profile.from_json(value),
        stage=Stage(name="profile", seconds=time.monotonic() - began, cached=cached),
        history=bench.cost_history.load(),
    )


def baseline_file(bench: Workbench) -> Path:
    """The uncompressed model's export."""
    return _entry(bench)[1] / BASELINE_FILE


def baseline_scores(bench: Workbench) -> Array:
    """(units,) of the validation split: what rows (or groups) of the uncompressed model contribute to the metric."""
    scores: Array = np.load(_entry(bench)[1] / SCORES_FILE)
    return scores


def _entry(bench: Workbench) -> tuple[dict[str, Any], Path, bool]:
    key = {"model": bench.inputs.model.sha256, **bench.data_key, **bench.target_key}
    return bench.cache.get_or_compute("profile", key, lambda folder: _compute(bench, folder))


def _compute(bench: Workbench, folder: Path) -> Mapping[str, Any]:
    program = bench.program
    path = folder / BASELINE_FILE
    path.write_bytes(serialize(export_onnx(program.module, bench.example)))
    session = bench.session(path)
    parity = check_parity(program.module, session, bench.example, tolerance=PARITY_TOLERANCE)
    bench.task.check_outputs(session_outputs(bench, session))
    evaluation = bench.evaluate(path, bench.splits.validation, alone=True)
    np.save(folder / SCORES_FILE, evaluation.scores)
    shapes = layer_shapes(program.module, bench.graph, bench.example)
    speed = _speed(bench)
    # Last, when the other processes of the job have started up.
    alone = measure_quietly(bench, path, path)
    baseline = Baseline(
        metric=evaluation.metric,
        latency_ms=alone.p50_ms,
        size_bytes=path.stat().st_size,
        macs=sum(layer.macs for layer in program.description.layers),
        parameters=program.description.parameters,
    )
    found = Profile(
        baseline=baseline,
        baseline_p90_ms=alone.p90_ms,
        groups=_groups(bench),
        shapes=shapes,
        left_out=dict(bench.graph.left_out),
        samples_per_second=speed,
        parity=parity,
        fingerprint=bench.fingerprint,
        rows={
            "tuning": len(bench.splits.tuning.rows),
            "validation": len(bench.splits.validation.rows),
            "test": len(bench.splits.test.rows),
        },
        blocks={b.name: b.layers for b in find_blocks(program.module, bench.example)},
        integer_layers=integer_layer_names(export_onnx(folded_copy(program.module, bench.example), bench.example)),
    )
    return asdict(found)


def session_outputs(bench: Workbench, session: Session) -> Array:
    """Of a few tuning rows."""
    some = np.arange(min(OUTPUT_ROWS, len(bench.splits.tuning.rows)), dtype=np.int64)
    return np.concatenate([session.run(bench.tuning_inputs(batch))[0] for batch in bench.batches(some)])


def _groups(bench: Workbench) -> tuple[Group, ...]:
    groups = bench.graph.groups
    last = max(1, len(groups) - 1)
    return tuple(
        Group(name=g.name, size=g.size, layers=len(g.layers) + len(g.consumers), position=i / last)
        for i, g in enumerate(groups)
    )


def _speed(bench: Workbench) -> float:
    """Samples per second of tuning the uncompressed model in this process."""
    model = clone(bench.program.module)
    config = Distillation(alpha=0.0, learning_rate=1e-6)
    optimizer = make_optimizer(model, config)
    rows = min(len(bench.splits.tuning.rows), BATCH)

    def fetch(positions: Any) -> Any:
        inputs = bench.tensors(bench.tuning_inputs(positions))
        return inputs, torch.from_numpy(bench.tuning_target(positions)), None

    seconds = []
    for step in range(SPEED_STEPS):
        run = Run(start=step * rows, stop=(step + 1) * rows, seen=step * rows)
        outcome = tune(model, bench.task, fetch, rows, config, run, optimizer, seed=0, clock=time.monotonic)
        seconds.append(outcome.seconds)
    return rows / min(seconds)

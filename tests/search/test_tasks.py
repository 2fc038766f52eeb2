"""Every task on rows as a dataset holds them: read, split, scored in the runtime, tuned; and a whole job of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq
import pytest
from scipy.special import log_softmax
from sklearn import metrics as sk

from compressors.onnx_export import export_onnx, serialize
from compressors.recipes.distillation import Distillation
from compressors.training import Run, make_optimizer, tune
from search.fit import check_fit
from search.inputs import JobInputs
from search.run import run_job
from search.workbench import Array, Workbench, clone
from tests.search.memory_ledger import MemoryLedger
from tests.search.tiny_jobs import NAMES, tiny_job


def answers(session: ort.InferenceSession, inputs: Array) -> Array:
    [outputs] = session.run(None, {session.get_inputs()[0].name: inputs})
    found: Array = np.asarray(outputs, np.float64)
    return found


def perplexity(logits: Array, target: Array) -> float:
    losses = -np.take_along_axis(log_softmax(logits[:, :-1], axis=2), np.maximum(target[:, 1:, None], 0), 2)[..., 0]
    return -float(np.exp(losses[target[:, 1:] >= 0].mean()))


def mean_iou(logits: Array, masks: Array) -> float:
    counted = masks != 255
    matrix = sk.confusion_matrix(masks[counted], logits.argmax(1)[counted])
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    return float((np.diag(matrix) / union).mean())


def ndcg_at_5(scores: Array, stored: Array) -> float:
    """stored: grades; queries are ten rows each, in order."""
    pairs = zip(scores.reshape(-1, 10), stored.reshape(-1, 10), strict=True)
    return float(np.mean([sk.ndcg_score(g[None], s[None], k=5) for s, g in pairs if g.any()]))


EXPECTED: dict[str, Callable[[Array, Array], float]] = {
    "classification": lambda outputs, y: float((outputs.argmax(1) == y).mean()),
    "binary": lambda outputs, y: float(((outputs[:, 0] > 0) == y).mean()),
    "multi_label": lambda outputs, y: float(sk.f1_score(y, outputs > 0, average="macro")),
    "regression": lambda outputs, y: float(sk.r2_score(y, outputs)),
    "ranking": ndcg_at_5,
    "segmentation": mean_iou,
    "token_classification": lambda outputs, y: float((outputs.argmax(2) == y)[y != -100].mean()),
    "language_modelling": perplexity,
}


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_read_split_scored_and_tuned(name: str, tmp_path: Path) -> None:
    inputs = tiny_job(name, tmp_path)
    descriptions = {key: file.description for key, file in inputs.datasets.items()}
    assert check_fit(inputs.spec, inputs.model.description, descriptions) == ()
    bench = Workbench(inputs, threads=1)
    parts = [bench.splits.tuning.rows, bench.splits.validation.rows, bench.splits.test.rows]
    assert sorted(np.concatenate(parts)) == list(range(descriptions["rows"].rows))
    path = tmp_path / "baseline.onnx"
    path.write_bytes(serialize(export_onnx(bench.program.module, bench.example)))
    evaluation = bench.evaluate(path, bench.splits.validation)
    rows = bench.rows("rows")
    validation = bench.splits.validation.rows
    outputs = answers(ort.InferenceSession(path), rows.inputs(validation)[0])
    stored = rows.target(validation)
    assert evaluation.metric == pytest.approx(EXPECTED[name](outputs, stored), rel=1e-6)
    assert evaluation.scores.mean() == pytest.approx(evaluation.metric, rel=1e-9)
    assert evaluation.error_against(evaluation.scores) == 0.0
    model, config = clone(bench.program.module), Distillation(alpha=0.5, learning_rate=1e-3)
    run = Run(start=0, stop=300, seen=0)
    count = len(bench.splits.tuning.rows)
    outcome = tune(
        model,
        bench.task,
        bench.tuning_batch,
        count,
        config,
        run,
        make_optimizer(model, config),
        seed=0,
        clock=lambda: 0.0,
    )
    assert outcome.seen == 300
    assert 0 < outcome.loss < 2


def test_queries_stay_whole(tmp_path: Path) -> None:
    splits = Workbench(tiny_job("ranking", tmp_path), threads=1).splits
    tuning, validation, test = (set(part.rows // 10) for part in (splits.tuning, splits.validation, splits.test))
    assert not tuning & validation and not tuning & test and not validation & test


def test_sentences_are_cut_and_filled(tmp_path: Path) -> None:
    """Inputs with id 0, which is looked up; targets with the value that does not count."""
    bench = Workbench(tiny_job("language_modelling", tmp_path), threads=1)
    first = np.arange(50)
    (ids,), target = bench.rows("rows").inputs(first), bench.rows("rows").target(first)
    sentences = pq.read_table(tmp_path / "rows.parquet", columns=["y"])["y"].to_pylist()
    for row, sentence in enumerate(sentences[:50]):
        kept = sentence[:8]
        assert ids[row].tolist() == kept + [0] * (8 - len(kept))
        assert target[row].tolist() == kept + [-100] * (8 - len(kept))


def run_to_its_end(inputs: JobInputs, folder: Path) -> MemoryLedger:
    ledger = MemoryLedger(folder)
    run_job(inputs, ledger)
    assert ledger.finished is not None
    assert ledger.finished["state"] == "succeeded", ledger.logs
    assert not [t for t in ledger.rows.values() if t.state == "failed"], ledger.logs
    json.dumps(ledger.finished["report"], allow_nan=False)
    return ledger


def test_a_language_model_is_pruned_and_tuned(tmp_path: Path) -> None:
    """Its input column is its target, its sentences have different lengths, its metric is below 0."""
    search = {"max_seconds": 12, "parallel": 1, "max_trials": 5}
    inputs = tiny_job("language_modelling", tmp_path, budget={"size_ratio": 0.28}, search=search)
    ledger = run_to_its_end(inputs, tmp_path / "out")
    assert ledger.finished is not None
    assert ledger.finished["outcome"] == "feasible", ledger.logs
    report = ledger.finished["report"]
    assert any(step["technique"] == "structured_pruning" for step in report["winner"]["recipe"]["steps"])
    bench = Workbench(inputs, threads=1)
    rows, held_out = bench.rows("rows"), bench.splits.test.rows
    session = ort.InferenceSession(tmp_path / "out" / "winner.onnx")
    found = perplexity(answers(session, rows.inputs(held_out)[0]), rows.target(held_out))
    assert report["winner"]["test_metric"] == pytest.approx(found, rel=1e-6)
    assert -12 < report["winner"]["metric"] < -1
    assert 0 < report["test"]["difference_error"] < 1

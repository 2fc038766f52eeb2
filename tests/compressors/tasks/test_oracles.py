"""Metrics are those of torchmetrics and scikit-learn, wherever these have an answer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)
from torchmetrics.regression import MeanSquaredError, R2Score
from torchmetrics.retrieval import RetrievalNormalizedDCG
from torchmetrics.text import Perplexity

from compressors.tasks import TaskOptions, task
from compressors.tasks.contributions import auc, average_precision, ndcg
from tests.conformance.task import Array

ROWS = 200
GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 4, ROWS)
LOGITS = (np.eye(4)[LABELS] + GENERATOR.normal(size=(ROWS, 4))).astype(np.float32)
SEVERAL = (GENERATOR.random((ROWS, 4)) < [0.5, 0.3, 0.1, 0.02]).astype(np.int64)
SEVERAL_LOGITS = np.round(SEVERAL - 0.5 + GENERATOR.normal(size=(ROWS, 4)), 1).astype(np.float32)  # with ties
MASKS = GENERATOR.integers(0, 3, (ROWS, 5, 4))
MASKS[:, 0] = 255
MASK_LOGITS = GENERATOR.normal(size=(ROWS, 3, 5, 4)).astype(np.float32)
VALUES = (5 + GENERATOR.normal(size=(ROWS, 2))).astype(np.float32)
GUESSES = (VALUES + 0.5 * GENERATOR.normal(size=(ROWS, 2))).astype(np.float32)
TOKENS = GENERATOR.integers(0, 4, (ROWS, 6))
TOKENS[::2, 4:] = -100
TOKEN_LOGITS = GENERATOR.normal(size=(ROWS, 6, 4)).astype(np.float32)
GRADES, SCORES = GENERATOR.integers(0, 5, ROWS), GENERATOR.normal(size=ROWS).astype(np.float32)
QUERIES = np.sort(GENERATOR.integers(0, 20, ROWS))


def computed(metric: Metric, outputs: Array, target: Array, **more: Tensor) -> float:
    metric.update(torch.from_numpy(outputs), torch.from_numpy(target), **more)
    return float(metric.compute())


Case = tuple[str, str, Array, Array, Callable[[], float]]
CASES: tuple[Case, ...] = (
    (
        "classification",
        "accuracy",
        LABELS,
        LOGITS,
        lambda: computed(MulticlassAccuracy(num_classes=4, average="micro"), LOGITS, LABELS),
    ),
    (
        "binary",
        "accuracy",
        SEVERAL[:, 0],
        LOGITS[:, 0],
        lambda: computed(BinaryAccuracy(), LOGITS[:, 0], SEVERAL[:, 0]),
    ),
    ("binary", "auc", SEVERAL[:, 0], LOGITS[:, :1], lambda: computed(BinaryAUROC(), LOGITS[:, 0], SEVERAL[:, 0])),
    ("multi_label", "f1_macro", SEVERAL, SEVERAL_LOGITS, lambda: _f1("macro")),
    ("multi_label", "f1_micro", SEVERAL, SEVERAL_LOGITS, lambda: _f1("micro")),
    (
        "multi_label",
        "map",
        SEVERAL,
        SEVERAL_LOGITS,
        lambda: computed(MultilabelAveragePrecision(num_labels=4), SEVERAL_LOGITS, SEVERAL),
    ),
    ("regression", "r2", VALUES, GUESSES, lambda: computed(R2Score(), GUESSES, VALUES)),
    ("regression", "-rmse", VALUES, GUESSES, lambda: -computed(MeanSquaredError(squared=False), GUESSES, VALUES)),
    (
        "segmentation",
        "mean_iou",
        MASKS,
        MASK_LOGITS,
        lambda: computed(MulticlassJaccardIndex(num_classes=3, ignore_index=255), MASK_LOGITS, MASKS),
    ),
    (
        "segmentation",
        "accuracy",
        MASKS,
        MASK_LOGITS,
        lambda: computed(MulticlassAccuracy(num_classes=3, average="micro", ignore_index=255), MASK_LOGITS, MASKS),
    ),
    (
        "token_classification",
        "accuracy",
        TOKENS,
        TOKEN_LOGITS,
        lambda: computed(
            MulticlassAccuracy(num_classes=4, average="micro", ignore_index=-100),
            TOKEN_LOGITS.transpose(0, 2, 1),
            TOKENS,
        ),
    ),
    (
        "token_classification",
        "f1_macro",
        TOKENS,
        TOKEN_LOGITS,
        lambda: computed(
            MulticlassF1Score(num_classes=4, average="macro", ignore_index=-100),
            TOKEN_LOGITS.transpose(0, 2, 1),
            TOKENS,
        ),
    ),
    (
        "language_modelling",
        "-perplexity",
        TOKENS,
        TOKEN_LOGITS,
        lambda: -computed(Perplexity(ignore_index=-100), TOKEN_LOGITS[:, :-1], TOKENS[:, 1:]),
    ),
    ("ranking", "auc", (GRADES > 2).astype(np.int64), SCORES, lambda: float(sk.roc_auc_score(GRADES > 2, SCORES))),
    ("ranking", "ndcg@5", GRADES, SCORES, lambda: _ndcg(5)),
    ("ranking", "ndcg", GRADES, SCORES, lambda: _ndcg(None)),
)


def _f1(average: Literal["macro", "micro"]) -> float:
    metric = MultilabelF1Score(num_labels=4, average=average)
    metric.update(torch.from_numpy(SEVERAL_LOGITS).sigmoid(), torch.from_numpy(SEVERAL))
    return float(metric.compute())


def _ndcg(cutoff: int | None) -> float:
    metric = RetrievalNormalizedDCG(top_k=cutoff)
    return computed(metric, SCORES, GRADES, indexes=torch.from_numpy(QUERIES))


@pytest.mark.parametrize(("name", "metric", "stored", "outputs", "expected"), CASES, ids=lambda v: str(v)[:20])
def test_the_metric_is_the_known_one(
    name: str, metric: str, stored: Array, outputs: Array, expected: Callable[[], float]
) -> None:
    subject = task(name, TaskOptions(metric=metric))
    groups = QUERIES if metric.startswith("ndcg") else None
    found = subject.metric(outputs, subject.as_target(stored), groups)
    assert found == pytest.approx(expected(), rel=1e-5)


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_ties_count_half_or_share_their_places(decimals: int) -> None:
    scores, positive = np.round(SCORES, decimals).astype(np.float64), GRADES > 2
    assert auc(scores, positive)[0] == pytest.approx(sk.roc_auc_score(positive, scores))
    assert average_precision(scores, positive)[0] == pytest.approx(sk.average_precision_score(positive, scores))
    expected = [sk.ndcg_score(GRADES[q == QUERIES][None], scores[q == QUERIES][None], k=5) for q in np.unique(QUERIES)]
    np.testing.assert_allclose(ndcg(scores, GRADES, QUERIES, 5), expected)


def test_a_constant_score_earns_nothing_from_the_order_of_the_file() -> None:
    grades = np.array([4, 3, 2, 1, 0, 0, 0, 0])
    (found,) = ndcg(np.zeros(8), grades, np.zeros(8, np.int64), 3)
    assert found < 0.5


def test_r2_of_large_values_keeps_its_digits() -> None:
    """Float32 sums, as torchmetrics takes them, answer 0.9999 here."""
    target = (1e5 + GENERATOR.normal(size=(5000, 1))).astype(np.float32)
    outputs = (target + 0.3 * GENERATOR.normal(size=target.shape)).astype(np.float32)
    expected = sk.r2_score(target.astype(np.float64), outputs.astype(np.float64))
    assert task("regression").metric(outputs, target) == pytest.approx(expected, rel=1e-9)
    assert expected < 0.95 < 0.99 < computed(R2Score(), outputs, target)


def test_what_does_not_occur_has_no_share() -> None:
    """A label, class or grade that the rows do not hold neither raises, warns, nor drags a mean down."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        labels = task("multi_label")
        both = np.array([[1, 0], [0, 0], [1, 0]], np.float32)
        assert labels.metric(np.array([[2, 3], [-2, -1], [2, -3]], np.float32), both) == 1.0
        assert labels.metric(both, np.zeros_like(both)) == 0.0
        masks = task("segmentation")
        one = np.zeros((2, 1, 2), np.int64)
        logits = np.zeros((2, 3, 1, 2), np.float32)
        logits[:, 0] = 1
        logits[0, 2, 0, 0] = 2  # an answer of a class that does not occur is a miss of the one that does
        assert masks.metric(logits, one) == 0.75
        for answers in (np.zeros(4, np.float32), np.ones(4, np.float32)):
            assert task("binary", TaskOptions(metric="auc")).metric(np.arange(4, dtype=np.float32), answers) == 0.5
        values = np.array([[1, 7], [2, 7], [3, 7]], np.float32)
        assert task("regression").metric(values, values) == 1.0
        assert task("regression").metric(values[:1], values[:1]) == 0.0
        assert len(ndcg(np.arange(4.0), np.array([0, 0, 1, 0]), np.array([0, 0, 1, 1]), None)) == 1

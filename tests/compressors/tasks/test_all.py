"""Every task of the catalogue, under each of its metrics, meets the contract."""

from __future__ import annotations

import numpy as np
import pytest

from compressors.tasks import descriptions
from tests.conformance.task import Array, Rows, TaskConformance

COUNT = 400
CLASSES = 5


def noise(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def logits_of(answers: Array, *, axis: int) -> Array:
    """Ones for the right class, before noise."""
    found: Array = np.moveaxis(np.eye(CLASSES, dtype=np.float32)[answers], -1, axis)
    return found


def labels(*shape: int) -> Array:
    """Classes of different frequency."""
    shares = np.arange(CLASSES, 0, -1) / (CLASSES * (CLASSES + 1) / 2)
    return np.random.default_rng(0).choice(CLASSES, size=shape, p=shares)


def models(clean: Array, *, spread: float = 1.0, right: float = 30.0) -> tuple[Array, Array, Array]:
    """Outputs without noise, with some, and with more."""
    one, two = noise(*clean.shape, seed=1), noise(*clean.shape, seed=2)
    return right * clean, 2 * clean + spread * one, clean + spread * (0.6 * one + two)


def rows(stored: Array, clean: Array, groups: Array | None = None, **options: float) -> Rows:
    right, good, worse = models(clean, **options)
    return Rows(stored=stored, right=right, good=good, worse=worse, groups=groups)


def test_every_task_of_the_catalogue_is_asked() -> None:
    asked = {
        getattr(kind, "task", None): set(getattr(kind, "metrics", ())) for kind in TaskConformance.__subclasses__()
    }
    for name, description in descriptions().items():
        if type(description).__module__.startswith("compressors."):
            assert {m.name for m in description.metrics} == asked[name]


class TestClassification(TaskConformance):
    task, metrics = "classification", ("accuracy",)

    @pytest.fixture
    def rows(self, metric: str) -> Rows:
        answers = labels(COUNT)
        return rows(answers, logits_of(answers, axis=-1))


class TestBinary(TaskConformance):
    task, metrics = "binary", ("accuracy", "auc")

    @pytest.fixture
    def rows(self, metric: str) -> Rows:
        answers = (labels(COUNT) < 2).astype(np.int64)
        return rows(answers, 2 * answers.astype(np.float32)[:, None] - 1)


class TestMultiLabel(TaskConformance):
    task, metrics = "multi_label", ("f1_macro", "f1_micro", "map")

    @pytest.fixture
    def rows(self, metric: str) -> Rows:
        answers = (noise(COUNT, 4, seed=5) > [0.0, 0.5, 0.8, 1.2]).astype(np.int64)
        return rows(answers, 2 * answers.astype(np.float32) - 1)


class TestRegression(TaskConformance):
    task, metrics = "regression", ("r2", "-rmse")

    @pytest.fixture
    def rows(self, metric: str) -> Rows:
        values = 1000 + np.array([1.0, 5.0]) * noise(COUNT, 2, seed=5)
        right = values.astype(np.float32)
        near, far = (right + s * noise(COUNT, 2, seed=k) for s, k in ((0.3, 1), (0.6, 2)))
        return Rows(stored=right, right=right, good=near, worse=far)

    def best(self, metric: str) -> float:
        return 0.0 if metric == "-rmse" else 1.0


class TestRanking(TaskConformance):
    task, metrics = "ranking", ("auc", "ndcg@5", "ndcg@10", "ndcg@20", "ndcg@100", "ndcg")

    @pytest.fixture
    def rows(self, metric: str) -> Rows:
        grades = labels(COUNT) if metric != "auc" else (labels(COUNT) > 1).astype(np.int64)
        groups = None if metric == "auc" else np.arange(COUNT) % 60
        return rows(grades, grades.astype(np.float32), groups)


class TestSegmentation(TaskConformance):
    task, metrics = "segmentation", ("mean_iou", "accuracy")

    @pytest.fixture
    def rows(self, metric: str) -> Rows:
        answers = labels(COUNT, 4, 3)
        found = rows(answers, logits_of(answers, axis=1))
        found.stored[::3, 0, :] = 255
        return found

    def with_noise_where_ignored(self, outputs: Array, target: Array, ignored: int) -> Array:
        last = np.moveaxis(outputs, 1, -1)
        return np.moveaxis(super().with_noise_where_ignored(last, target, ignored), -1, 1)


class TestTokenClassification(TaskConformance):
    task, metrics = "token_classification", ("accuracy", "f1_macro")

    @pytest.fixture
    def rows(self, metric: str) -> Rows:
        answers = labels(COUNT, 6)
        found = rows(answers, logits_of(answers, axis=-1))
        found.stored[np.arange(6)[None, :] >= 1 + np.arange(COUNT)[:, None] % 6] = -100
        return found


class TestLanguageModelling(TaskConformance):
    task, metrics = "language_modelling", ("-perplexity", "-cross_entropy")

    @pytest.fixture
    def rows(self, metric: str) -> Rows:
        tokens = labels(COUNT, 6)
        found = rows(tokens, np.roll(logits_of(tokens, axis=-1), -1, axis=1))
        found.stored[np.arange(6)[None, :] >= 2 + np.arange(COUNT)[:, None] % 5] = -100
        return found

    def with_noise_where_ignored(self, outputs: Array, target: Array, ignored: int) -> Array:
        following = np.roll(target, -1, axis=1)
        following[:, -1] = ignored
        return super().with_noise_where_ignored(outputs, following, ignored)

    def best(self, metric: str) -> float:
        return -1.0 if metric == "-perplexity" else 0.0

"""What every task must do. Subclass it, give it rows of the task, and the same questions are asked of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from compressors.descriptions import ColumnDescription, TensorDescription
from compressors.tasks import TargetFacts, Task, TaskOptions, describe, standard_error, task

Array = npt.NDArray[Any]
RESAMPLES = 400


@dataclass(frozen=True, kw_only=True)
class Rows:
    """stored: the target as a dataset holds it, (rows, ...). right: outputs that answer everything correctly. good,
    worse: outputs of two models, the second further off. groups: for metrics that compare rows within groups.
    """

    stored: Array
    right: Array
    good: Array
    worse: Array
    groups: Array | None = None


class TaskConformance:
    """Set `task` and `metrics`, and provide the fixture `rows` (200 or more).

    tolerance: of the standard error against the bootstrap, relative.
    """

    task: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    tolerance = 0.2

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "metric" in metafunc.fixturenames:
            metafunc.parametrize("metric", self.metrics)

    def best(self, metric: str) -> float:
        """The metric of right answers."""
        return 1.0

    @pytest.fixture
    def rows(self, metric: str) -> Rows:
        raise pytest.UsageError("provide the fixture `rows`")

    @pytest.fixture
    def subject(self, metric: str) -> Task:
        return task(self.task, TaskOptions(metric=metric))

    @pytest.fixture
    def target(self, subject: Task, rows: Rows) -> Array:
        return subject.as_target(rows.stored)

    # -- the description -----------------------------------------------------------------------------------------------

    def test_it_says_what_it_is(self, subject: Task, metric: str) -> None:
        description = describe(self.task)
        assert (subject.name, description.name) == (self.task, self.task)
        assert description.summary and description.outputs and description.target and description.__class__.__module__
        names = [m.name for m in description.metrics]
        assert len(set(names)) == len(names) and metric in names
        assert subject.metric_name == description.metric(metric).title

    def test_its_own_rows_fit_its_description(self, metric: str, rows: Rows) -> None:
        description = describe(self.task)
        output = TensorDescription(name="y", shape=(None, *rows.right.shape[1:]), dtype="float32")
        kept = rows.stored[rows.stored != description.ignore_index] if description.ignore_index else rows.stored
        column = ColumnDescription(
            name="target",
            kind="float" if rows.stored.dtype.kind == "f" else "integer",
            dtype=str(rows.stored.dtype),
            shape=rows.stored.shape[1:],
            minimum=float(kept.min()),
            maximum=float(kept.max()),
            distinct=len(np.unique(rows.stored)) if rows.stored.ndim == 1 else None,
        )
        facts = TargetFacts(
            column=column,
            rows=len(rows.stored),
            output=output,
            options=description.complete(TaskOptions(metric=metric)),
            length=rows.right.shape[1] if description.reads == "lists" else None,
        )
        assert list(description.output_problems(output)) == []
        assert list(description.target_problems(facts)) == []

    def test_outputs_and_targets_that_cannot_be_are_named(self) -> None:
        description = describe(self.task)
        odd = TensorDescription(name="y", shape=(None, 2, 3, 4, 5), dtype="int64")
        assert [p for p in description.output_problems(odd) if "float32" in p]
        text = ColumnDescription(name="words", kind="text", dtype="string", shape=())
        facts = TargetFacts(column=text, rows=10, output=odd, options=description.complete(TaskOptions()))
        assert all("'words'" in p for p in description.target_problems(facts))
        assert list(description.target_problems(facts))

    # -- targets and training ------------------------------------------------------------------------------------------

    def test_targets_come_in_one_form(self, subject: Task, rows: Rows, target: Array) -> None:
        assert len(target) == len(rows.stored)
        assert target.dtype in (np.int64, np.float32)
        np.testing.assert_array_equal(subject.as_target(target), target)
        strata = subject.strata(target)
        assert (strata is not None) == subject.stratified
        assert strata is None or (strata.shape == (len(target),) and strata.dtype == np.int64)

    @pytest.mark.parametrize("prepared", [False, True])
    def test_losses_teach(self, subject: Task, rows: Rows, target: Array, prepared: bool) -> None:
        """A step against the gradient makes both losses smaller."""
        subject = subject.prepared(target) if prepared else subject
        labels, teacher = torch.from_numpy(target), torch.from_numpy(rows.right)
        measures: tuple[Callable[[Tensor], Tensor], ...] = (
            lambda outputs: subject.loss(outputs, labels),
            lambda outputs: subject.divergence(outputs, teacher, 2.0),
            lambda outputs: subject.divergence(outputs, teacher, 2.0, labels),
        )
        for measure in measures:
            outputs = torch.from_numpy(rows.worse).requires_grad_()
            before = measure(outputs)
            assert before.shape == ()
            (gradient,) = torch.autograd.grad(before, outputs)
            assert gradient.isfinite().all()
            after = measure(outputs.detach() - gradient / gradient.norm())
            assert float(after) < float(before.detach())

    def test_divergence_is_a_distance_from_the_teacher(self, subject: Task, rows: Rows) -> None:
        right, good, worse = (torch.from_numpy(o) for o in (rows.right, rows.good, rows.worse))
        assert float(subject.divergence(good, good, 3.0)) == pytest.approx(0.0, abs=1e-6)
        assert 0 < float(subject.divergence(good, right, 1.0)) < float(subject.divergence(worse, right, 1.0))

    def test_what_does_not_count_does_not_count(self, subject: Task, rows: Rows, target: Array) -> None:
        ignored = subject.options.ignore_index
        if ignored is None:  # then every value counts
            labels = torch.from_numpy(target)
            losses = [float(subject.loss(torch.from_numpy(o), labels)) for o in (rows.good, rows.worse)]
            assert losses[0] < losses[1]
            return
        assert (target == ignored).any(), "the rows of this test hold no ignored value"
        alone = np.full_like(target, ignored)
        outputs, labels = torch.from_numpy(rows.good), torch.from_numpy(alone)
        assert float(subject.loss(outputs, labels)) == 0.0
        assert float(subject.divergence(outputs, torch.from_numpy(rows.right), 1.0, labels)) == 0.0
        assert math.isfinite(subject.metric(rows.good, alone))
        other = self.with_noise_where_ignored(rows.good, target, ignored)
        assert not np.array_equal(other, rows.good)
        assert subject.metric(other, target) == subject.metric(rows.good, target)
        labels = torch.from_numpy(target)
        assert float(subject.loss(torch.from_numpy(other), labels)) == pytest.approx(
            float(subject.loss(outputs, labels))
        )

    def with_noise_where_ignored(self, outputs: Array, target: Array, ignored: int) -> Array:
        """Classes lie on the last dimension of `outputs`."""
        noise = np.random.default_rng(3).normal(size=outputs.shape).astype(np.float32)
        return np.where((target == ignored)[..., None], noise, outputs)

    # -- measuring -----------------------------------------------------------------------------------------------------

    def test_right_answers_are_the_best(self, subject: Task, rows: Rows, target: Array) -> None:
        right, good, worse = (subject.metric(o, target, rows.groups) for o in (rows.right, rows.good, rows.worse))
        assert right == pytest.approx(self.best(str(subject.options.metric)), abs=0.01)
        assert right > good > worse

    def test_scores_add_up_to_the_metric(self, subject: Task, rows: Rows, target: Array) -> None:
        for outputs in (rows.right, rows.good, rows.worse):
            scores = subject.scores(outputs, target, rows.groups)
            assert scores.ndim == 1 and scores.dtype == np.float64
            assert scores.mean() == pytest.approx(subject.metric(outputs, target, rows.groups), rel=1e-9, abs=1e-12)

    def test_batches_add_up_to_the_whole(self, subject: Task, rows: Rows, target: Array) -> None:
        whole = subject.statistics(rows.good, target)
        parts = [subject.statistics(rows.good[i : i + 7], target[i : i + 7]) for i in range(0, len(target), 7)]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-6)
        assert len(whole) == len(target)

    def test_the_standard_error_is_that_of_the_bootstrap(self, subject: Task, rows: Rows, target: Array) -> None:
        good, worse = subject.statistics(rows.good, target), subject.statistics(rows.worse, target)
        ours = standard_error(subject.scores_of(good, rows.groups) - subject.scores_of(worse, rows.groups))
        found = [
            subject.metric_of(good[at], groups) - subject.metric_of(worse[at], groups)
            for at, groups in self.resamples(rows)
        ]
        assert ours == pytest.approx(float(np.std(found)), rel=self.tolerance)

    def resamples(self, rows: Rows) -> Iterator[tuple[Array, Array | None]]:
        """Rows (or whole groups, each drawn one a group of its own) drawn with replacement."""
        generator = np.random.default_rng(11)
        for _ in range(RESAMPLES):
            if rows.groups is None:
                yield generator.integers(0, len(rows.stored), len(rows.stored)), None
                continue
            members = [np.flatnonzero(rows.groups == g) for g in np.unique(rows.groups)]
            drawn = [members[i] for i in generator.integers(0, len(members), len(members))]
            yield np.concatenate(drawn), np.repeat(np.arange(len(drawn)), [len(d) for d in drawn])

    def test_broken_outputs_have_a_finite_and_bad_metric(self, subject: Task, rows: Rows, target: Array) -> None:
        for bad in (np.nan, np.inf):
            outputs = np.full_like(rows.good, bad)
            found = subject.metric(outputs, target, rows.groups)
            assert math.isfinite(found)
            assert found < subject.metric(rows.good, target, rows.groups)
            assert np.isfinite(subject.scores(outputs, target, rows.groups)).all()

    def test_one_row_has_a_metric(self, subject: Task, rows: Rows, target: Array) -> None:
        groups = None if rows.groups is None else rows.groups[:1]
        assert math.isfinite(subject.metric(rows.good[:1], target[:1], groups))

    def test_agreement_is_a_share(self, subject: Task, rows: Rows) -> None:
        assert subject.agreement(rows.good, rows.good) == 1.0
        assert 0 <= subject.agreement(rows.right, rows.worse) < subject.agreement(rows.right, rows.good) <= 1

    def test_a_trained_models_outputs_are_not_doubted(self, subject: Task, rows: Rows) -> None:
        subject.check_outputs(rows.good)

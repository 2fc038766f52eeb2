"""Scores to sort by."""

from __future__ import annotations

import copy

import numpy as np
from torch import Tensor
from torch.nn import functional

from compressors.errors import InvalidData
from compressors.tasks.contract import Array, Floats, Integers, Task
from compressors.tasks.contributions import auc, ndcg
from compressors.tasks.divergences import bernoulli_divergence
from compressors.tasks.one_score import flat, one_float_per_row, only_zeros_and_ones, score_and_target


class RankingTask(Task):
    """Outputs (rows,) or (rows, 1), target (rows,) float32 grades. Statistics: score and grade, (rows, 2).

    The loss is pointwise (cross-entropy of the grade as a share of the largest one): batches of tuning are drawn from
    all rows, so a pair of the same group is rare in them, and a pointwise loss keeps scores comparable across groups.
    """

    stratified = True
    _largest: float = 1.0

    def as_target(self, values: Array) -> Array:
        grades = one_float_per_row(values, "grade")
        if grades.size and grades.min() < 0:
            raise InvalidData(f"the target holds the grade {grades.min():g}; grades must not be negative; shift them")
        return only_zeros_and_ones(grades) if self.options.metric == "auc" else grades

    def strata(self, target: Array) -> Integers | None:
        return np.unique(target, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def prepared(self, target: Array) -> Task:
        made = copy.copy(self)
        made._largest = max(float(target.max(initial=0.0)), 1.0)
        return made

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        share = (target / self._largest).clamp(max=1.0)
        return functional.binary_cross_entropy_with_logits(flat(outputs), share)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float, target: Tensor | None = None) -> Tensor:
        return bernoulli_divergence(student, teacher, temperature)

    def statistics(self, outputs: Array, target: Array) -> Array:
        return score_and_target(outputs, target)

    def metric_of(self, statistics: Array, groups: Integers | None = None) -> float:
        if self.options.metric == "auc":
            return auc(statistics[:, 0], statistics[:, 1] > 0)[0]
        found = self.scores_of(statistics, groups)
        return float(found.mean()) if len(found) else 0.0

    def scores_of(self, statistics: Array, groups: Integers | None = None) -> Floats:
        if self.options.metric == "auc":
            return auc(statistics[:, 0], statistics[:, 1] > 0)[1]
        if groups is None:
            raise InvalidData(f"{self.options.metric} compares rows within groups; name their column in data.group")
        return ndcg(statistics[:, 0], statistics[:, 1], groups, self._cutoff)

    @property
    def _cutoff(self) -> int | None:
        cutoff = str(self.options.metric).partition("@")[2]
        return int(cutoff) if cutoff else None

    def agreement(self, outputs: Array, other: Array) -> float:
        """Share of pairs of rows that both put in the same order (Kendall's concordance)."""
        first, second = (np.sign(o.reshape(-1, 1) - o.reshape(1, -1)) for o in (outputs, other))
        pairs = ~np.eye(len(first), dtype=bool)
        return float((first == second)[pairs].mean()) if pairs.any() else 1.0

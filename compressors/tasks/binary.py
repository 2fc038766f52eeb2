"""Yes or no per row."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional

from compressors.tasks.contract import Array, Floats, Integers, Task
from compressors.tasks.contributions import auc
from compressors.tasks.divergences import bernoulli_divergence
from compressors.tasks.one_score import (
    flat,
    one_float_per_row,
    only_zeros_and_ones,
    refuse_probabilities,
    score_and_target,
)


class BinaryTask(Task):
    """Outputs (rows,) or (rows, 1), target (rows,) float32 of 0 and 1. Statistics: logit and answer, (rows, 2)."""

    stratified = True

    def as_target(self, values: Array) -> Array:
        return only_zeros_and_ones(one_float_per_row(values, "answer"))

    def strata(self, target: Array) -> Integers | None:
        return target.astype(np.int64)

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(flat(outputs), target)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float, target: Tensor | None = None) -> Tensor:
        return bernoulli_divergence(student, teacher, temperature)

    def check_outputs(self, outputs: Array) -> None:
        refuse_probabilities(outputs, self.name)

    def statistics(self, outputs: Array, target: Array) -> Array:
        return score_and_target(outputs, target)

    def metric_of(self, statistics: Array, groups: Integers | None = None) -> float:
        if self.options.metric == "auc":
            return auc(statistics[:, 0], statistics[:, 1] > 0)[0]
        return float(self.scores_of(statistics).mean())

    def scores_of(self, statistics: Array, groups: Integers | None = None) -> Floats:
        scores, positive = statistics[:, 0], statistics[:, 1] > 0
        if self.options.metric == "auc":
            return auc(scores, positive)[1]
        hits: Floats = ((scores > 0) == positive).astype(np.float64)
        return hits

    def agreement(self, outputs: Array, other: Array) -> float:
        return float(((outputs > 0) == (other > 0)).mean())

"""Any number of several labels per row."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional

from compressors.errors import InvalidData
from compressors.tasks.contract import Array, Floats, Integers, Task
from compressors.tasks.contributions import average_precision, mean_of_columns, ratios
from compressors.tasks.divergences import bernoulli_divergence
from compressors.tasks.one_score import only_zeros_and_ones, refuse_probabilities


class MultiLabelTask(Task):
    """Outputs (rows, labels), target (rows, labels) float32 of 0 and 1. Statistics: both, (rows, 2, labels) float32.

    Labels that occur in no row are left out of means: their F1 and precision have no value.
    """

    stratified = True

    def as_target(self, values: Array) -> Array:
        if values.ndim != 2:
            raise InvalidData(f"answers of shape {values.shape}; a list of zeros and ones per row is needed")
        return only_zeros_and_ones(np.ascontiguousarray(values.astype(np.float32)))

    def strata(self, target: Array) -> Integers | None:
        """The rarest label of each row, so that rare ones are found in every split; 0 for rows without any."""
        rank = np.argsort(np.argsort(target.sum(axis=0), kind="stable"), kind="stable")  # 0: the rarest
        labels = target.shape[1]
        rarest: Integers = np.where(target > 0, labels - rank, 0).max(axis=1).astype(np.int64)
        return rarest

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs, target)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float, target: Tensor | None = None) -> Tensor:
        return bernoulli_divergence(student, teacher, temperature)

    def check_outputs(self, outputs: Array) -> None:
        refuse_probabilities(outputs, self.name)

    def statistics(self, outputs: Array, target: Array) -> Array:
        return np.stack([np.nan_to_num(outputs.astype(np.float32)), target.astype(np.float32)], axis=1)

    def metric_of(self, statistics: Array, groups: Integers | None = None) -> float:
        return self._computed(statistics)[0]

    def scores_of(self, statistics: Array, groups: Integers | None = None) -> Floats:
        return self._computed(statistics)[1]

    def _computed(self, statistics: Array) -> tuple[float, Floats]:
        logits, positive = statistics[:, 0], statistics[:, 1] > 0
        occurs = positive.sum(axis=0) > 0
        if self.options.metric == "map":
            columns = [average_precision(logits[:, k], positive[:, k]) for k in range(logits.shape[1])]
            value = np.array([found for found, _ in columns])
            return mean_of_columns(value, np.stack([c for _, c in columns], axis=1), occurs)
        chosen = logits > 0
        twice_hits = 2.0 * (chosen & positive)
        either = chosen.astype(np.float64) + positive
        if self.options.metric == "f1_micro":
            one, contributions = ratios(twice_hits.sum(axis=1, keepdims=True), either.sum(axis=1, keepdims=True))
            return float(one[0]), contributions[:, 0]
        return mean_of_columns(*ratios(twice_hits, either), occurs)

    def agreement(self, outputs: Array, other: Array) -> float:
        return float(((outputs > 0) == (other > 0)).mean())

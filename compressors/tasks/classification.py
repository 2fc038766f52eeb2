"""One class of several per row."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional

from compressors.errors import InvalidData
from compressors.tasks.contract import Array, Floats, Integers, Task
from compressors.tasks.divergences import softmax_divergence


class ClassificationTask(Task):
    """Outputs (rows, classes), target (rows,) int64. Statistics: 1 for a hit, (rows,)."""

    stratified = True

    def as_target(self, values: Array) -> Array:
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise InvalidData(
                f"classes of shape {values.shape} and dtype {values.dtype}; one integer per row is needed"
            )
        return values.astype(np.int64, copy=False)

    def strata(self, target: Array) -> Integers | None:
        return target

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, target)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float, target: Tensor | None = None) -> Tensor:
        return softmax_divergence(student, teacher, temperature)

    def statistics(self, outputs: Array, target: Array) -> Array:
        hits: Floats = (outputs.argmax(axis=1) == target).astype(np.float64)
        return hits

    def metric_of(self, statistics: Array, groups: Integers | None = None) -> float:
        return float(statistics.mean())

    def scores_of(self, statistics: Array, groups: Integers | None = None) -> Floats:
        return statistics

    def agreement(self, outputs: Array, other: Array) -> float:
        return float((outputs.argmax(axis=1) == other.argmax(axis=1)).mean())

"""Numbers to hit."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from compressors.errors import InvalidData
from compressors.tasks.contract import Array, Floats, Integers, Task
from compressors.tasks.contributions import mean_of_columns, ratios

STRATA = 10
SAME = 0.05  # answers count as equal within this share of their spread
ABSURD = 1e15  # stands for NaN and infinity


class RegressionTask(Task):
    """Outputs (rows,) or (rows, values), target (rows, values) float32. Statistics: both, (rows, 2, values) float64.

    Losses are divided by the variance of the tuning targets, so that neither learning rates nor the clipping of
    gradients depend on the unit.
    """

    stratified = True
    _variance: Tensor | None = None

    def as_target(self, values: Array) -> Array:
        if values.ndim not in (1, 2):
            raise InvalidData(f"targets of shape {values.shape}; one number or a list of numbers per row is needed")
        return np.ascontiguousarray(values.reshape(len(values), -1).astype(np.float32))

    def strata(self, target: Array) -> Integers | None:
        """Tenths of the rows by their first value."""
        rank = np.argsort(np.argsort(target[:, 0], kind="stable"), kind="stable")
        strata: Integers = (rank * STRATA // len(rank)).astype(np.int64)
        return strata

    def prepared(self, target: Array) -> Task:
        variance = target.astype(np.float64).var(axis=0)
        made = copy.copy(self)
        made._variance = torch.from_numpy(np.where(variance > 0, variance, 1.0).astype(np.float32))
        return made

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return self._squared(outputs, target)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float, target: Tensor | None = None) -> Tensor:
        """Mean squared difference. There is nothing that a temperature could soften."""
        return self._squared(student, teacher)

    def _squared(self, outputs: Tensor, other: Tensor) -> Tensor:
        squared = (outputs.reshape(len(outputs), -1) - other.reshape(len(other), -1)) ** 2
        return (squared if self._variance is None else squared / self._variance).mean()

    def statistics(self, outputs: Array, target: Array) -> Array:
        values = outputs.reshape(target.shape).astype(np.float64)
        values = np.nan_to_num(values, nan=ABSURD, posinf=ABSURD, neginf=-ABSURD)
        return np.stack([values, target.astype(np.float64)], axis=1)

    def metric_of(self, statistics: Array, groups: Integers | None = None) -> float:
        return self._computed(statistics)[0]

    def scores_of(self, statistics: Array, groups: Integers | None = None) -> Floats:
        return self._computed(statistics)[1]

    def _computed(self, statistics: Array) -> tuple[float, Floats]:
        """R² of values that do not vary has none and is left out of the mean."""
        outputs, target = statistics[:, 0], statistics[:, 1]
        errors = (outputs - target) ** 2
        if self.options.metric == "-rmse":
            mean = errors.mean(axis=1)
            root = float(np.sqrt(mean.mean()))
            return -root, -root - (mean - root**2) / (2 * root if root > 0 else 1.0)
        spread = (target - target.mean(axis=0)) ** 2
        value, contributions = ratios(errors, spread)
        return mean_of_columns(1.0 - value, 1.0 - contributions, spread.sum(axis=0) > 0)

    def agreement(self, outputs: Array, other: Array) -> float:
        """Answers within 5 % of the spread of `outputs`."""
        near = SAME * outputs.std(axis=0)
        return float((np.abs(outputs - other) <= np.where(near > 0, near, SAME * np.abs(outputs).mean(axis=0))).mean())

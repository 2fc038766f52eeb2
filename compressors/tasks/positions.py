"""What tasks with one class per position share: pixels and tokens."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from torch import Tensor
from torch.nn import functional

from compressors.errors import InvalidData
from compressors.tasks.contract import Array, Floats, Integers, Task
from compressors.tasks.contributions import mean_of_columns, ratios
from compressors.tasks.divergences import mean_of, position_divergence


class PositionTask(Task):
    """Target (rows, positions...) int64. Statistics per row and class: hits, positions of the class, answers of it:
    (rows, classes, 3) float64. Positions with the ignored value count nowhere.

    Means over classes are over those that occur in the target, so that two models are averaged over the same ones;
    answers of other classes still count as misses.
    """

    @property
    def ignored(self) -> int:
        assert self.options.ignore_index is not None
        return self.options.ignore_index

    @abstractmethod
    def classes_last(self, outputs: Tensor) -> Tensor:
        """(rows, positions, classes)."""

    @abstractmethod
    def answers(self, outputs: Array) -> tuple[Array, int]:
        """(classes of all positions in the shape of the target, number of classes)."""

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        logits = self.classes_last(outputs).flatten(0, 1)
        losses = functional.cross_entropy(logits, target.flatten(), ignore_index=self.ignored, reduction="none")
        return mean_of(losses, target.flatten() != self.ignored)

    def divergence(self, student: Tensor, teacher: Tensor, temperature: float, target: Tensor | None = None) -> Tensor:
        counted = None if target is None else (target != self.ignored).flatten(1)
        return position_divergence(self.classes_last(student), self.classes_last(teacher), temperature, counted)

    def statistics(self, outputs: Array, target: Array) -> Array:
        answers, classes = self.answers(outputs)
        if answers.shape != target.shape:
            raise InvalidData(
                f"targets of shape {target.shape} for answers of shape {answers.shape}; one class id per position is "
                "needed"
            )
        counted = target != self.ignored
        row = np.broadcast_to(np.arange(len(target)).reshape(-1, *[1] * (target.ndim - 1)), target.shape)
        wrong = target[counted & ((target < 0) | (target >= classes))]
        if wrong.size:
            raise InvalidData(
                f"the target holds the class {wrong[0]}; the model knows {classes} classes, 0..{classes - 1}, and "
                f"{self.ignored} does not count; renumber it or set data.ignore_index"
            )

        def count(chosen: Array, of: Array) -> Floats:
            found = np.bincount(row[chosen] * classes + of[chosen], minlength=len(target) * classes)
            return found.reshape(len(target), classes).astype(np.float64)

        hits = count(counted & (answers == target), target)
        return np.stack([hits, count(counted, target), count(counted, answers)], axis=2)

    def metric_of(self, statistics: Array, groups: Integers | None = None) -> float:
        return self._computed(statistics)[0]

    def scores_of(self, statistics: Array, groups: Integers | None = None) -> Floats:
        return self._computed(statistics)[1]

    def _computed(self, statistics: Array) -> tuple[float, Floats]:
        hits, present, answered = (statistics[:, :, i] for i in range(3))
        occurs = present.sum(axis=0) > 0
        if self.options.metric == "mean_iou":
            return mean_of_columns(*ratios(hits, present + answered - hits), occurs)
        if self.options.metric == "f1_macro":
            return mean_of_columns(*ratios(2 * hits, present + answered), occurs)
        value, contributions = ratios(hits.sum(axis=1, keepdims=True), present.sum(axis=1, keepdims=True))
        return float(value[0]), contributions[:, 0]

    def agreement(self, outputs: Array, other: Array) -> float:
        return float((self.answers(outputs)[0] == self.answers(other)[0]).mean())

"""The half of a task that computes: loss, metric, and how two models are compared row by row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from compressors.tasks.description import TaskDescription, TaskOptions

if TYPE_CHECKING:  # importing this module must not import torch
    from torch import Tensor

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class Task(ABC):
    """One task with its options. Outputs are those of the model's only output, (rows, ...) float32.

    Arrays of outputs can be far larger than memory (a language model gives one number per token of its vocabulary), so
    a metric is computed in two steps: `statistics` takes a batch of outputs and keeps a few numbers per row,
    `metric_of` and `scores_of` take the statistics of all rows.

    stratified: `strata` gives something, and is worth reading all targets for.
    """

    stratified: ClassVar[bool] = False

    def __init__(self, description: TaskDescription, options: TaskOptions) -> None:
        """options: complete, as `compressors.tasks.task` makes them."""
        self.description = description
        self.options = options

    @property
    def name(self) -> str:
        return self.description.name

    @property
    def metric_name(self) -> str:
        """What people call the metric; higher is better."""
        return self.description.metric(self.options.metric).title

    # -- targets -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def as_target(self, values: Array) -> Array:
        """What `loss`, `statistics` and `divergence` take, from rows as they are stored: shape and dtype.

        values: (rows, ...) int64, or float32. Raises InvalidData for values that the task cannot have.
        """

    def strata(self, target: Array) -> Integers | None:
        """(rows,): rows of one number are spread evenly over splits. None: any split will do."""
        return None

    def prepared(self, target: Array) -> Task:
        """The task, adapted to targets as these tuning rows have them (their spread, their largest grade)."""
        return self

    # -- training ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Mean over all values that count, a scalar."""

    @abstractmethod
    def divergence(self, student: Tensor, teacher: Tensor, temperature: float, target: Tensor | None = None) -> Tensor:
        """How far the student's outputs are from the teacher's, a scalar >= 0, 0 for equal outputs.

        target: where it is given, positions that do not count are left out.
        """

    # -- measuring -----------------------------------------------------------------------------------------------------

    def check_outputs(self, outputs: Array) -> None:
        """Raises UnsupportedModel if the uncompressed model's outputs cannot mean what the task takes them for."""
        return

    @abstractmethod
    def statistics(self, outputs: Array, target: Array) -> Array:
        """(rows, ...): what the metric needs to know of each row. Batches are joined along the first dimension."""

    @abstractmethod
    def metric_of(self, statistics: Array, groups: Integers | None = None) -> float:
        """Over all rows; finite whatever the outputs are. groups: (rows,), for metrics that need them."""

    @abstractmethod
    def scores_of(self, statistics: Array, groups: Integers | None = None) -> Floats:
        """(units,): each unit's share in the metric, so that their mean is the metric and their spread its error.

        Units are rows; for metrics over groups they are the groups. See `compressors.tasks.contributions`.
        """

    @abstractmethod
    def agreement(self, outputs: Array, other: Array) -> float:
        """Share of answers (not rows) that are the same, 0..1."""

    def metric(self, outputs: Array, target: Array, groups: Integers | None = None) -> float:
        """`metric_of` all rows at once."""
        return self.metric_of(self.statistics(outputs, target), groups)

    def scores(self, outputs: Array, target: Array, groups: Integers | None = None) -> Floats:
        """`scores_of` all rows at once."""
        return self.scores_of(self.statistics(outputs, target), groups)


def standard_error(difference: Floats) -> float:
    """Of the mean of paired differences (units,)."""
    if len(difference) < 2:
        return 0.0
    return float(difference.std(ddof=1) / np.sqrt(len(difference)))

"""How a file answered the rows of a split: enough to know its metric and how far that may be off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compressors.tasks import Task, standard_error

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Evaluation:
    """statistics: of the rows, as the task keeps them. groups: (rows,), if the metric compares rows inside groups."""

    task: Task
    statistics: Array
    groups: npt.NDArray[np.int64] | None

    @property
    def metric(self) -> float:
        return self.task.metric_of(self.statistics, self.groups)

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """(units,): what each row (or group) contributes to the metric."""
        return self.task.scores_of(self.statistics, self.groups)

    def error_against(self, scores: npt.NDArray[np.float64]) -> float:
        """Standard error of the difference in metric from another model with these scores on the same rows."""
        return standard_error(self.scores - scores)

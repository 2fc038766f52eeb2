"""What a model is for: its loss, its metric and how two models are compared sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

from compressors.errors import InvalidData


class Task(Protocol):
    """metric_name: what `metric` is called; higher is better."""

    name: str
    metric_name: str

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """outputs: (batch, ...), target: (batch,). Mean loss, a scalar."""
        ...

    def metric(self, outputs: npt.NDArray[Any], target: npt.NDArray[Any]) -> float:
        """Over all rows at once, as torchmetrics defines it."""
        ...

    def scores(self, outputs: npt.NDArray[Any], target: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """(rows,): each row's share in the metric, for the standard error of a difference between two models."""
        ...


class Classification:
    """One label of several. Outputs are logits (rows, classes); metric: top-1 accuracy."""

    name = "classification"
    metric_name = "top-1 accuracy"

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(outputs, target)

    def metric(self, outputs: npt.NDArray[Any], target: npt.NDArray[Any]) -> float:
        metric = MulticlassAccuracy(num_classes=outputs.shape[1], average="micro")
        metric.update(torch.from_numpy(outputs), torch.from_numpy(np.asarray(target, dtype=np.int64)))
        rows = len(target)
        return round(float(metric.compute()) * rows) / rows  # hits / rows; torchmetrics answers in float32

    def scores(self, outputs: npt.NDArray[Any], target: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        hits: npt.NDArray[np.float64] = (outputs.argmax(axis=1) == target).astype(np.float64)
        return hits


_TASKS: dict[str, Callable[[], Task]] = {"classification": Classification}


def task(name: str) -> Task:
    """Raises InvalidData for a name that is not known."""
    if name not in _TASKS:
        raise InvalidData(f"task={name!r}: unknown; known are {sorted(_TASKS)}")
    return _TASKS[name]()


def standard_error(difference: npt.NDArray[np.float64]) -> float:
    """Of the mean of paired differences (rows,)."""
    if len(difference) < 2:
        return 0.0
    return float(difference.std(ddof=1) / np.sqrt(len(difference)))

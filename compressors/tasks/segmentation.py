"""One class of several per pixel."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from compressors.errors import InvalidData
from compressors.tasks.contract import Array
from compressors.tasks.positions import PositionTask


class SegmentationTask(PositionTask):
    """Outputs (rows, classes, height, width), target (rows, height, width)."""

    def as_target(self, values: Array) -> Array:
        if values.ndim == 4 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 3 or values.dtype.kind not in "iu":
            raise InvalidData(
                f"masks of shape {values.shape} and dtype {values.dtype}; integers (height, width) needed"
            )
        return values.astype(np.int64, copy=False)

    def classes_last(self, outputs: Tensor) -> Tensor:
        return outputs.flatten(2).transpose(1, 2)

    def answers(self, outputs: Array) -> tuple[Array, int]:
        return outputs.argmax(axis=1), outputs.shape[1]

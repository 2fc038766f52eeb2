"""One class of several per token."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from compressors.errors import InvalidData
from compressors.tasks.contract import Array
from compressors.tasks.positions import PositionTask


class TokenClassificationTask(PositionTask):
    """Outputs (rows, length, classes), target (rows, length)."""

    def as_target(self, values: Array) -> Array:
        if values.ndim != 2 or values.dtype.kind not in "iu":
            raise InvalidData(f"classes of shape {values.shape} and dtype {values.dtype}; a list of integers is needed")
        return values.astype(np.int64, copy=False)

    def classes_last(self, outputs: Tensor) -> Tensor:
        return outputs

    def answers(self, outputs: Array) -> tuple[Array, int]:
        return outputs.argmax(axis=-1), outputs.shape[-1]

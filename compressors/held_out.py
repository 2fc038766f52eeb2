"""Tuning rows that are set aside, so that a technique can look at the metric without touching validation rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from compressors.errors import InvalidData
from compressors.onnx_emission import array_of
from compressors.training import BATCH, Batch, Training, first_output

_MOST = 2000
_LEAST = 8


class HeldOut:
    """`share` of the rows of `training` (at most 2,000, drawn with `seed`), and what is left to tune on.

    Raises InvalidData if that is fewer than 8 rows.
    """

    def __init__(self, training: Training, share: float, seed: int) -> None:
        count = min(int(share * training.rows), _MOST)
        if count < _LEAST:
            raise InvalidData(
                f"{share:g} of {training.rows} tuning rows are {count} rows to watch the metric on: at least {_LEAST} "
                "are needed; add rows, or watch no metric"
            )
        order = np.random.default_rng((seed, 17)).permutation(training.rows).astype(np.int64)
        self._rows, kept = np.sort(order[:count]), np.sort(order[count:])
        self._whole = training

        def fetch(positions: npt.NDArray[np.int64]) -> Batch:
            return training.fetch(kept[positions])

        self.training = replace(training, rows=len(kept), fetch=fetch)

    def metric(self, model: nn.Module) -> float:
        """Of `model` in eval mode, whose own mode is left as it was."""
        mode = model.training
        model.eval()
        parts = []
        with torch.no_grad():
            for start in range(0, len(self._rows), BATCH):
                inputs, target, _ = self._whole.fetch(self._rows[start : start + BATCH])
                outputs = array_of(first_output(model(*inputs)).float())
                parts.append(self._whole.task.statistics(outputs, array_of(target)))
        model.train(mode)
        return self._whole.task.metric_of(np.concatenate(parts))

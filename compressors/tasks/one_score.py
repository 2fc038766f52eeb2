"""What tasks with one logit per row share."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from compressors.errors import InvalidData, UnsupportedModel
from compressors.tasks.contract import Array


def flat(outputs: Tensor) -> Tensor:
    """(rows,) from (rows,) or (rows, 1)."""
    return outputs.reshape(-1)


def score_and_target(outputs: Array, target: Array) -> Array:
    """Statistics (rows, 2): the score, 0 where it is NaN, and the target."""
    scores = np.nan_to_num(outputs.reshape(len(target)).astype(np.float64))
    return np.stack([scores, target.astype(np.float64)], axis=1)


def one_float_per_row(values: Array, what: str) -> Array:
    """(rows,) float32 from (rows,) or (rows, 1)."""
    if values.shape not in ((len(values),), (len(values), 1)):
        raise InvalidData(f"{what}s of shape {values.shape}; one {what} per row is needed")
    return np.ascontiguousarray(values.reshape(-1).astype(np.float32))


def only_zeros_and_ones(values: Array) -> Array:
    """The same values. Raises InvalidData for another, naming it."""
    wrong = values[(values != 0) & (values != 1)]
    if wrong.size:
        raise InvalidData(f"the target holds {wrong.reshape(-1)[0]:g}; only 0 and 1 are answers; renumber them")
    return values


def refuse_probabilities(outputs: Array, task: str) -> None:
    """Logits of a trained model have both signs or leave 0..1; a sigmoid inside would be read as yes everywhere."""
    if outputs.size and outputs.min() >= 0 and outputs.max() <= 1 and np.ptp(outputs) > 0:
        raise UnsupportedModel(
            f"all outputs lie in 0..1 ({outputs.min():.3g}..{outputs.max():.3g}), as if they were probabilities; "
            f"{task} needs logits; leave the sigmoid out of the model and export again"
        )

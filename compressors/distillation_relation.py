"""How rows lie to each other as a target: relational distillation (RKD, Park et al. 2019, arXiv:1904.05068).

    distance (equations 5-7): psi(i, j) = ||x_i - x_j|| / mean over pairs
    angle (equations 8-10):   psi(i, j, k) = cos of the angle at j between x_i - x_j and x_k - x_j
    L = mean over pairs of huber(psi_distance(student) - psi_distance(teacher))
        + 2 * mean over triplets of huber(psi_angle(student) - psi_angle(teacher))

with the Huber loss of delta 1 and the paper's weights of 1 to 2 (section 4.1: 25 and 50). Rows of a batch are compared
with each other, so that student and teacher may have any number of channels. Costs rows^3 multiplications per batch,
whatever the number of channels: angles come from the Gram matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ANGLE_WEIGHT = 2.0
SMALLEST = 1e-12
SAME = 1e-6  # share of the mean squared distance below which two rows are the same: the Gram matrix tells no more


def relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The formula above, a scalar; (rows, ...) each. Pairs need two rows and angles three; without them they are 0."""
    rows = len(student)
    ours, theirs = student.reshape(rows, -1), teacher.reshape(rows, -1)
    if rows < 2:
        return ours.sum() * 0
    loss = _huber(distances(ours), distances(theirs)) / (rows * (rows - 1))
    if rows > 2:
        loss = loss + ANGLE_WEIGHT * _huber(cosines(ours), cosines(theirs)) / (rows * (rows - 1) * (rows - 2))
    return loss


def distances(x: Tensor) -> Tensor:
    """(rows, channels) -> (rows, rows): Euclidean distances in units of the mean distance of two rows."""
    rows = len(x)
    found = _apart(_gram(x)).sqrt() * ~torch.eye(rows, dtype=torch.bool)
    return found * (rows * (rows - 1)) / found.sum().clamp(min=SMALLEST**0.5)


def cosines(x: Tensor) -> Tensor:
    """(rows, channels) -> (j, i, k): cosine of the angle at j between i and k; 0 where it is not defined, so that
    triplets with a row twice add nothing to a difference."""
    gram = _gram(x)
    apart = _apart(gram)
    at = gram.diagonal()
    # (x_i - x_j) . (x_k - x_j)
    products = gram[None] - gram[:, :, None] - gram[:, None, :] + at[:, None, None]
    other = ~torch.eye(len(x), dtype=torch.bool)
    inverse = apart.rsqrt() * (other & (apart > SAME * apart.mean()))
    return products * inverse[:, :, None] * inverse[:, None, :] * other


def _gram(x: Tensor) -> Tensor:
    """Inner products of centred rows; the centre changes no distance, and small numbers lose fewer digits."""
    centred = x - x.mean(0)
    return centred @ centred.T


def _apart(gram: Tensor) -> Tensor:
    """Squared distances, bounded away from 0 so that their roots have gradients."""
    at = gram.diagonal()
    return (at[:, None] + at[None] - 2 * gram).clamp(min=SMALLEST)


def _huber(student: Tensor, teacher: Tensor) -> Tensor:
    return functional.huber_loss(student, teacher, reduction="sum")

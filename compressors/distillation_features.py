"""Inner outputs as targets: hints (FitNets, Romero et al. 2015, arXiv:1412.6550, equation 3).

    L = mean((r(student) - teacher)^2) / mean(teacher^2)

over all rows, places and channels. r is the paper's regressor: a linear map of the channels, the same at every place (a
1x1 convolution), trained along and thrown away afterwards; where no channel has gone, r is the identity. The paper's
1/2 ||.||^2 depends on a layer's width and scale; divided by the teacher's mean square it is the share of the teacher's
signal that the student does not explain, so that one weight fits all layers. The original's outputs are not trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compressors.errors import InvalidRecipe

SMALLEST = 1e-12  # mean square of a teacher's output that is taken as zero


class Adapter(nn.Module):
    """Maps a student's channels to its teacher's. axis: of the channels."""

    def __init__(self, student: int, teacher: int, axis: int) -> None:
        super().__init__()
        self.map = nn.Linear(student, teacher)
        self._axis = axis

    def forward(self, features: Tensor) -> Tensor:
        mapped: Tensor = self.map(features.movedim(self._axis, -1))
        return mapped.movedim(-1, self._axis)


def adapter(field: str, student: Tensor, teacher: Tensor, axis: int, seed: int) -> nn.Module:
    """A seeded adapter for outputs like these, the identity where shapes agree. field: for messages.

    Raises InvalidRecipe for outputs that differ in more than their channels: there is no telling which places belong
    together.
    """
    if student.shape == teacher.shape:
        return nn.Identity()
    places = [tuple(size for at, size in enumerate(t.shape) if at != axis) for t in (student, teacher)]
    if student.dim() != teacher.dim() or places[0] != places[1]:
        raise InvalidRecipe(
            f"{field}: the student gives {list(student.shape)}, the original {list(teacher.shape)}, and only channels "
            f"(axis {axis}) may differ; name layers of the same resolution"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Adapter(student.shape[axis], teacher.shape[axis], axis)


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The formula above, a scalar; `student` is adapted already. Shapes are equal."""
    return (student - teacher).square().mean() / teacher.square().mean().clamp(min=SMALLEST)

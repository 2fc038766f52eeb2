"""Where a layer looks as a target: attention transfer (Zagoruyko & Komodakis 2017, arXiv:1612.03928, equation 2).

    Q(A) = sum over channels of A^2, one value per place        (their F^2_sum)
    L    = mean over rows of || Q(student) / ||Q(student)|| - Q(teacher) / ||Q(teacher)|| ||^2

L lies in 0..2 whatever the numbers of channels and places, and needs no adapter. The paper weighs its sum by
beta = 1000 divided by places (and rows), over 2: for an 8x8 map attention_weight=7.8 is the same. Places are pixels for
convolutions, positions for token models.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from compressors.errors import InvalidRecipe


def attention_map(output: Tensor, axis: int) -> Tensor:
    """(rows, channels at `axis`, places...) -> (rows, places), of length 1 each."""
    return functional.normalize(output.square().sum(axis).flatten(1), dim=1)


def attention_loss(student: Tensor, teacher: Tensor, axis: int) -> Tensor:
    """The formula above, a scalar. Both have the same places; channels may differ in number."""
    return (attention_map(student, axis) - attention_map(teacher, axis)).square().sum(1).mean()


def check_places(field: str, student: Tensor, teacher: Tensor, axis: int) -> None:
    """Raises InvalidRecipe for outputs without places, and for places that differ. field: for messages."""
    if student.dim() < 3:
        raise InvalidRecipe(
            f"{field}: its output {list(student.shape)} has rows and channels but no places to attend to; name a "
            "convolution or a layer over positions, or use features"
        )
    places = [[size for at, size in enumerate(t.shape) if at != axis] for t in (student, teacher)]
    if student.dim() != teacher.dim() or places[0] != places[1]:
        raise InvalidRecipe(
            f"{field}: the student gives {list(student.shape)}, the original {list(teacher.shape)}: other places; "
            "name layers of the same resolution"
        )

"""How far a student's outputs are from its teacher's: one measure for each kind of answer.

With a temperature T, gradients shrink by T^2; every softened measure is multiplied by it, so that the mix with the task
loss does not depend on T (Hinton et al. 2015, arXiv:1503.02531, section 2).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def softmax_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over the rows, in nats. Both (rows, classes)."""
    return temperature**2 * functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def position_divergence(student: Tensor, teacher: Tensor, temperature: float, counted: Tensor | None) -> Tensor:
    """The same over positions: (rows, positions, classes) each. counted: (rows, positions) bool; None: all.

    Mean over the positions that count; 0 if none does.
    """
    divergence = functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="none",
        log_target=True,
    ).sum(-1)
    return temperature**2 * (divergence.mean() if counted is None else mean_of(divergence, counted))


def bernoulli_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL of independent yes-or-no answers sigmoid(logit / T), mean over all of them, in nats."""
    student, teacher = student / temperature, teacher / temperature
    yes = teacher.sigmoid()
    gain = yes * (functional.logsigmoid(teacher) - functional.logsigmoid(student))
    loss = (1 - yes) * (functional.logsigmoid(-teacher) - functional.logsigmoid(-student))
    return temperature**2 * (gain + loss).mean()


def mean_of(values: Tensor, counted: Tensor) -> Tensor:
    """Mean of the values that count, 0 if none does. A batch may hold padding only."""
    return (values * counted).sum() / counted.sum().clamp(min=1)

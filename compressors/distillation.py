"""The loss that teaches a smaller model with the original's logits (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from compressors.recipe import Distillation
from compressors.tasks import Task


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), mean over the batch, in nats.

    student, teacher: logits (batch, classes). T^2 keeps the gradients' size independent of T (section 2 there).
    """
    return temperature**2 * functional.kl_div(
        functional.log_softmax(student / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def distillation_loss(
    task: Task, student: Tensor, target: Tensor, teacher: Tensor | None, config: Distillation
) -> Tensor:
    """alpha * divergence + (1 - alpha) * task loss; the task loss alone when alpha is 0 or there is no teacher."""
    if teacher is None or config.alpha == 0:
        return task.loss(student, target)
    soft = divergence(student, teacher, config.temperature)
    if config.alpha == 1:
        return soft
    return config.alpha * soft + (1 - config.alpha) * task.loss(student, target)

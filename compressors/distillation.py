"""The loss that teaches a smaller model with the original's outputs (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

from torch import Tensor

from compressors.recipe import Distillation
from compressors.tasks import Task


def distillation_loss(
    task: Task, student: Tensor, target: Tensor, teacher: Tensor | None, config: Distillation
) -> Tensor:
    """alpha * the task's divergence + (1 - alpha) * its loss; the loss alone when alpha is 0 or there is no teacher."""
    if teacher is None or config.alpha == 0:
        return task.loss(student, target)
    soft = task.divergence(student, teacher, config.temperature, target)
    if config.alpha == 1:
        return soft
    return config.alpha * soft + (1 - config.alpha) * task.loss(student, target)

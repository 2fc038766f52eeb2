"""Tunes a model with the original, and further models, as its teachers."""

from __future__ import annotations

import copy

from torch import fx

from compressors.recipe import Distillation
from compressors.registry import Context, register
from compressors.tuning_plan import check_names, tuning_plan


@register(Distillation)
def distil(model: fx.GraphModule, config: Distillation, context: Context) -> fx.GraphModule:
    """A copy tuned on `config.samples` samples; a draft is a plain copy.

    Raises InvalidRecipe for layers and teachers that do not exist or do not fit.
    """
    check_names(model, config, context)
    tuned: fx.GraphModule = copy.deepcopy(model)
    if not context.draft and config.samples:
        assert context.training is not None
        plan = tuning_plan(tuned, config, context)
        context.training.tune(tuned, config, seed=context.seed, objective=plan.objective, further=plan.further)
    return tuned.eval()

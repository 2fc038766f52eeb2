"""Tunes a model with the original as its teacher."""

from __future__ import annotations

import copy

from torch import fx

from compressors.recipe import Distillation
from compressors.registry import Context, register


@register(Distillation)
def distil(model: fx.GraphModule, config: Distillation, context: Context) -> fx.GraphModule:
    """A copy tuned on `config.samples` samples; a draft is a plain copy."""
    tuned: fx.GraphModule = copy.deepcopy(model)
    if not context.draft and config.samples:
        assert context.training is not None
        context.training.tune(tuned, config, seed=context.seed)
    return tuned.eval()

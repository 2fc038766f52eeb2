"""Batch-norm statistics of a changed model, from calibration inputs."""

from __future__ import annotations

import copy

from torch import fx

from compressors.batch_norm_statistics import reestimate
from compressors.recipe import BatchNormReestimation
from compressors.registry import Context, register


@register(BatchNormReestimation)
def reestimate_batch_norms(model: fx.GraphModule, config: BatchNormReestimation, context: Context) -> fx.GraphModule:
    """A copy with fresh statistics; a draft is a plain copy."""
    changed: fx.GraphModule = copy.deepcopy(model)
    if not context.draft:
        reestimate(changed, context.batches())
    return changed.eval()

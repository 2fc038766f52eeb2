"""Makes the whole network narrower by one factor."""

from __future__ import annotations

import copy

from torch import fx

from compressors.channels import analyse
from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.fresh_weights import draw_weights
from compressors.recipe import StructuredPruning, WidthScaling
from compressors.registry import Context, register
from compressors.structured_pruning import choose_removed, remove_units, verified_groups


@register(WidthScaling)
def scale_width(model: fx.GraphModule, config: WidthScaling, context: Context) -> fx.GraphModule:
    """A new, narrower model; a draft is the same.

    Raises UnsupportedModel if no unit of the model may go, InvalidRecipe if `config` rounds to no change at all.
    """
    scaled = copy.deepcopy(model) if config.factor == 1 else _narrower(model, config, context)
    if config.weights == "fresh":
        draw_weights(scaled, context.seed)
    return scaled.eval()


def _narrower(model: fx.GraphModule, config: WidthScaling, context: Context) -> fx.GraphModule:
    graph = context.graph or verified_groups(model, analyse(model, context.example_inputs), context.example_inputs)
    if not graph.groups:
        reasons = "; ".join(f"{name}: {why}" for name, why in [*graph.left_out.items(), *graph.protected.items()][:3])
        raise UnsupportedModel(
            f"width_scaling: no channel or unit of the model may go{f' ({reasons})' if reasons else ''}; "
            "leave the technique out, or give a student"
        )
    pruning = StructuredPruning(ratio=1 - config.factor, multiple=config.multiple)
    removed = choose_removed(model, graph, pruning, context.seed)
    if not removed:
        raise InvalidRecipe(
            f"width_scaling.factor={config.factor}: no group loses a unit, rounded to multiples of {config.multiple} "
            f"(the widest has {max(graph.sizes.values())}); lower factor or multiple"
        )
    return remove_units(model, graph, removed)

"""Structured pruning as a technique: scores, by data where the criterion needs them, then removal."""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from compressors.channels import ChannelGraph, analyse
from compressors.data_importance import activation_scores, taylor_scores
from compressors.errors import InvalidRecipe
from compressors.importance import Scores
from compressors.recipes.structured_pruning import Importance, StructuredPruning
from compressors.registry import Context, register
from compressors.structured_pruning import choose_removed, remove_units
from compressors.training import first_output, order

# Labelled rows that first-order scores are averaged over, and rows per gradient.
TAYLOR_ROWS = 1024
TAYLOR_BATCH = 64


@register(StructuredPruning)
def prune(model: fx.GraphModule, config: StructuredPruning, context: Context) -> fx.GraphModule:
    """A new model without the units that `config` takes away; `model` is untouched, tied weights stay tied.

    A draft ranks by l2 where a criterion needs data. Raises InvalidRecipe for a group that does not exist or is left
    out, for more units than it has, and for data that are not there.
    """
    graph = context.graph or analyse(model, context.example_inputs)
    scores = None if context.draft else data_scores(model, graph, config.importance, context)
    return remove_units(model, graph, choose_removed(model, graph, config, context.seed, scores))


def data_scores(
    model: fx.GraphModule, graph: ChannelGraph, importance: Importance, context: Context
) -> Mapping[str, Scores] | None:
    """Scores of all groups by a criterion that needs data, None for the others. Raises InvalidRecipe without data."""
    field = f"structured_pruning.importance={importance!r}"
    if importance == "activation":
        if context.calibration is None:
            raise InvalidRecipe(f"{field}: reads calibration inputs and none are given; add data, or use l2")
        return activation_scores(model, graph, context.batches())
    if importance == "taylor":
        training = context.training
        if training is None:
            raise InvalidRecipe(f"{field}: reads labelled rows and none are given; add data with a target, or use l2")
        rows = order(training.rows, 0, context.seed)[:TAYLOR_ROWS]
        fetched = (training.fetch(rows[start : start + TAYLOR_BATCH]) for start in range(0, len(rows), TAYLOR_BATCH))
        batches = ((inputs, target) for inputs, target, _ in fetched)
        return taylor_scores(model, graph, batches, lambda y, t: training.task.loss(first_output(y).float(), t))
    return None

"""Removes residual blocks, the least influential first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, fx

from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.recipe import DepthPruning
from compressors.registry import Context, register
from compressors.residual_blocks import Block, find_blocks, influences, without_blocks


@register(DepthPruning)
def prune_depth(model: fx.GraphModule, config: DepthPruning, context: Context) -> fx.GraphModule:
    """A new model without the blocks that `choose_blocks` names. Raises as that does."""
    return without_blocks(model, choose_blocks(model, config, context))


def choose_blocks(model: fx.GraphModule, config: DepthPruning, context: Context) -> list[Block]:
    """The blocks that go. Raises UnsupportedModel for a model without blocks; InvalidRecipe for blocks that do not
    exist, more blocks than there are, and a threshold under which none lies."""
    blocks = find_blocks(model, context.example_inputs)
    if not blocks:
        raise UnsupportedModel(
            "depth_pruning: no residual block x + f(x) in this model, so no part of it can be passed by; "
            "leave the technique out"
        )
    if config.blocks:
        return [_named(blocks, name) for name in config.blocks]
    chosen: list[Block] = []
    scores = _scores(model, blocks, context)
    while config.count is None or len(chosen) < config.count:
        left = _left(blocks, chosen)
        if not left:
            names = [block.name for block in blocks]
            raise InvalidRecipe(
                f"depth_pruning.count={config.count}: this model has {len(chosen)} blocks that can go one after the "
                f"other: {names}; lower it"
            )
        if config.rescore and chosen:
            scores = _scores(without_blocks(model, chosen), left, context)
        least = min(left, key=lambda block: scores[block.name])
        if config.threshold is not None and scores[least.name] >= config.threshold:
            break
        chosen.append(least)
        if config.threshold is not None and not _left(blocks, chosen):
            break
    if not chosen:
        least = min(blocks, key=lambda block: scores[block.name])
        raise InvalidRecipe(
            f"depth_pruning.threshold={config.threshold}: no block has less influence; the least is "
            f"{least.name!r} with {scores[least.name]:.3g}; raise it"
        )
    return chosen


def _named(blocks: Sequence[Block], name: str) -> Block:
    found = next((block for block in blocks if block.name == name), None)
    if found is None:
        names = [block.name for block in blocks]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
        raise InvalidRecipe(f"depth_pruning.blocks: {name!r} is no block of this model; near it are {near}")
    return found


def _left(blocks: Iterable[Block], chosen: Sequence[Block]) -> list[Block]:
    gone = {name for block in chosen for name in (*block.nodes, block.addition)}
    return [block for block in blocks if block.addition not in gone]


def _scores(model: fx.GraphModule, blocks: Sequence[Block], context: Context) -> Mapping[str, float]:
    batches: Iterable[tuple[Tensor, ...]] = [context.example_inputs]
    if not context.draft or context.calibration is not None:
        batches = context.batches()
    return influences(model, blocks, batches)

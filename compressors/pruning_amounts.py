"""How many units every group keeps: counts, shares, or one share over all groups by the units' scores."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from compressors.channel_groups import ChannelGroup
from compressors.channels import ChannelGraph
from compressors.errors import InvalidRecipe
from compressors.importance import Scores
from compressors.recipes.structured_pruning import StructuredPruning

# Kinds of groups that a share for all groups applies to; of a grid of heads and places, one axis is enough.
_BY_RATIO = frozenset({"channels", "units", "heads", "recurrent"})
# Kinds that kernels read in blocks; there are too few heads for that.
_ROUNDED = frozenset({"channels", "units", "recurrent"})


def kept_counts(graph: ChannelGraph, config: StructuredPruning, scores: Callable[[str], Scores]) -> dict[str, int]:
    """Units kept of every group that loses any. scores: of a group's units; called only if the counts depend on them.

    Raises InvalidRecipe for a group that does not exist or is left out, and for more units than it has.
    """
    counts: dict[str, float] = {}
    for field, named in (("keep", config.keep), ("ratios", config.ratios)):
        for name in named:
            if name not in graph.sizes:
                raise InvalidRecipe(f"structured_pruning.{field}[{name!r}]: {_unknown(name, graph)}")
    for name, count in config.keep.items():
        if not 1 <= count <= graph.sizes[name]:
            raise InvalidRecipe(f"structured_pruning.keep[{name!r}]={count}: must lie in 1..{graph.sizes[name]}")
    free = [group for group in graph.groups if group.kind in _BY_RATIO and group.name not in config.ratios]
    if config.scope == "global":
        counts.update(_ranked(free, config, {group.name: scores(group.name) for group in free}))
    elif config.ratio:
        counts.update({group.name: group.size * (1 - config.ratio) for group in free})
    counts.update({name: graph.sizes[name] * (1 - share) for name, share in config.ratios.items()})
    rounded = {
        group.name: _rounded(group, counts[group.name], config) for group in graph.groups if group.name in counts
    }
    return {name: count for name, count in {**rounded, **config.keep}.items() if count < graph.sizes[name]}


def _rounded(group: ChannelGroup, count: float, config: StructuredPruning) -> int:
    multiple = config.multiple if group.kind in _ROUNDED else 1
    # Halves go up, whatever the float error of 1 - share.
    steps = math.floor(count / multiple + 0.5 + 1e-9)
    return min(group.size, max(1, steps) * multiple)


def _ranked(groups: Iterable[ChannelGroup], config: StructuredPruning, scores: Mapping[str, Scores]) -> dict[str, int]:
    """Counts after the lowest scores of all groups are gone, `ratio` of the units in number.

    Norms of one group say nothing about those of another, so they count in units of their group's mean. Taylor's are
    changes of the same loss. Groups at their minimum lose no more, and others lose more in their place.
    """
    groups = list(groups)
    floors = {group.name: max(1, math.ceil(config.minimum_share * group.size - 1e-9)) for group in groups}
    candidates = []
    for group in groups:
        # One unit of every lane goes at a time: of each the lowest that is left.
        own = np.sort(scores[group.name].reshape(group.lanes, -1), axis=1).sum(axis=0)
        scale = 1.0 if config.importance == "taylor" else max(float(own.mean()), 1e-12)
        lowest = np.argsort(own, kind="stable")[: group.size - floors[group.name]]
        candidates += [(float(own[unit]) / scale, group.name) for unit in lowest]
    total = sum(group.size for group in groups)
    gone = sorted(candidates, key=lambda candidate: candidate[0])[: round(config.ratio * total)]
    counts = {group.name: group.size for group in groups}
    for _, name in gone:
        counts[name] -= 1
    return counts


def _unknown(name: str, graph: ChannelGraph) -> str:
    for reasons, what in ((graph.left_out, "left out"), (graph.protected, "fixed")):
        if name in reasons:
            return f"this group is {what}: {reasons[name]}"
    near = difflib.get_close_matches(name, graph.sizes, n=3, cutoff=0.4) or sorted(graph.sizes)[:5]
    return f"no such group; near it are {near}" if near else "no such group; this model has none"

"""Which channels of a model may be removed together, by exact propagation of channel ids through its graph.

Producers (convolutions, linear and recurrent layers, embeddings) give every output channel an id; elementwise calls
pass ids on and join those that meet; concatenation, slicing, padding, views and permutations move them about. A unit is
a set of joined ids, or a row or column of a grid of them (an attention head): it is removed everywhere at once. Units
that occur in the same places in the same way form a group; any of them may go. The idea of coupled groups is that of
DepGraph (Fang et al. 2023, arXiv:2301.12900); positions instead of whole layers make it exact through padding, slices,
concatenations, views and shuffles. Cost: linear in nodes times channels.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from compressors.channel_groups import ChannelGroup, find_groups
from compressors.channel_layers import layer_layout
from compressors.channel_rules import function_layout
from compressors.channel_solving import Solution, solve
from compressors.channel_tracking import (
    Constant,
    Gather,
    LayerChannels,
    Layout,
    Literal,
    Padding,
    Pieces,
    Tracker,
    flat,
)
from compressors.errors import InvalidRecipe
from compressors.module_tree import get_tensor
from compressors.shape_recording import record_shapes

Units = NDArray[np.int64]
Kept = NDArray[np.bool_]


@dataclass(frozen=True)
class ChannelGraph:
    """Result of `analyse`; refers to nodes and tensors by name, so it holds for deep copies of the model too.

    Everything that is called ids in `channel_tracking` is a number here: a unit if below `units`, else a compound that
    stays while all units in its row of `compounds` do.
    nodes: names of the model's nodes. members: units of each group, lane by lane. left_out: reason per group that must
    not be used. layouts: per node and tensor that it yields, numbers along the tracked dimensions. axes: per stored
    tensor, numbers along its sliced dimensions. reordered: per stored vector whose removed entries move behind the
    others, its numbers. protected: reason per layer none of whose outputs may go. The others say how calls are
    rewritten, by node.
    """

    groups: tuple[ChannelGroup, ...]
    units: int
    compounds: Units
    nodes: tuple[str, ...]
    members: Mapping[str, Units]
    layouts: Mapping[str, tuple[Mapping[int, Units], ...]]
    axes: Mapping[str, Mapping[int, Units]]
    reordered: Mapping[str, Units]
    layers: Mapping[str, LayerChannels]
    literals: Mapping[str, tuple[Literal, ...]]
    pieces: Mapping[str, Pieces]
    gathers: Mapping[str, Gather]
    paddings: Mapping[str, tuple[Padding, ...]]
    constants: Mapping[str, Constant]
    protected: Mapping[str, str]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def sizes(self) -> dict[str, int]:
        """Units per group."""
        return {group.name: group.size for group in self.groups}

    def group(self, name: str) -> ChannelGroup:
        return next(group for group in self.groups if group.name == name)

    def check(self, module: fx.GraphModule) -> None:
        """Raises InvalidRecipe if `module` is not the model that was analysed, or has been pruned since."""
        same = tuple(node.name for node in module.graph.nodes) == self.nodes
        for name, by_axis in self.axes.items() if same else ():
            tensor = get_tensor(module, name)
            sizes = {} if tensor is None else {axis: tensor.shape[axis] for axis in by_axis}
            same = same and sizes == {axis: len(units) for axis, units in by_axis.items()}
        if not same:
            raise InvalidRecipe("the channel graph is another model's: analyse this model before it is pruned")

    def kept(self, removed: Mapping[str, Iterable[int]]) -> Kept:
        """Mask over all numbers. removed: per group, indices of the units that go, 0 <= index < size * lanes.

        Lane l has the indices from l * size on.
        """
        kept: Kept = np.ones(self.units + len(self.compounds), dtype=np.bool_)
        for name, indices in removed.items():
            kept[self.members[name][np.asarray(list(indices), dtype=np.int64)]] = False
        kept[self.units :] = kept[self.compounds].all(axis=1)
        return kept

    def check_lanes(self, kept: Kept) -> None:
        """Raises InvalidRecipe if lanes of a group lose different numbers of units."""
        for group in self.groups:
            counts = kept[self.members[group.name]].reshape(group.lanes, -1).sum(axis=1)
            if (counts != counts[0]).any():
                raise InvalidRecipe(f"{group.name}: all its lanes must keep equally many units, not {counts.tolist()}")

    def places(self, group: str) -> Units:
        """Per number, the index of the group's unit that it is or depends on; -1 for none."""
        places = np.full(self.units + len(self.compounds), -1, dtype=np.int64)
        places[self.members[group]] = np.arange(len(self.members[group]))
        places[self.units :] = places[self.compounds].max(axis=1)
        return places

    def without(self, reasons: Mapping[str, str]) -> ChannelGraph:
        """The same graph with the groups named in `reasons` left out."""
        groups = tuple(group for group in self.groups if group.name not in reasons)
        return replace(self, groups=groups, left_out={**self.left_out, **reasons})


def analyse(module: fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> ChannelGraph:
    """Groups of removable channels of `module`; runs it once on `example_inputs` for the shapes.

    Inputs, outputs and all that has no rule are protected; groups of one unit are not listed.
    """
    tracker = Tracker(module, record_shapes(module, example_inputs))
    for node in module.graph.nodes:
        if node.op == "call_module":
            tracker.layouts[node] = layer_layout(tracker, node)
        elif node.op == "get_attr" and tracker.shape(node) is not None:
            tracker.layouts[node] = tracker.store(node)
        elif node.op == "call_function" and node.target is operator.getitem:
            value = tracker.layouts.get(node.args[0])
            tracker.layouts[node] = value[node.args[1]] if isinstance(value, list) else None
        elif node.op == "call_function":
            tracker.layouts[node] = function_layout(tracker, node)
        elif node.op == "output":
            for source in node.all_input_nodes:
                tracker.protect_value(source, "it is an output of the model")
    _tie(tracker)
    while True:
        graph, uneven = _graph(tracker, solve(tracker))
        if not uneven:
            return graph
        for name in uneven:
            tracker.merge_lanes(tracker.lanes.pop(name))


def _tie(tracker: Tracker) -> None:
    """A tensor stored under two names is sliced once: its axes are joined, one that only one name slices is fixed."""
    names: dict[int, str] = {}
    for name in tracker.axes:
        first = names.setdefault(id(get_tensor(tracker.module, name)), name)
        if first == name:
            continue
        ours, theirs = tracker.axes[name], tracker.axes[first]
        for axis in ours.keys() | theirs.keys():
            if axis in ours and axis in theirs:
                tracker.join(ours[axis], theirs[axis])
            else:
                ids = ours[axis] if axis in ours else theirs[axis]
                tracker.protect(ids, f"{name} is shared with {first}, which needs it whole")
    for name, ids in tracker.reordered.items():
        first = names.setdefault(id(get_tensor(tracker.module, name)), name)
        if first != name:
            tracker.protect(ids, f"{name} is shared with {first}, which keeps its order")


def _graph(tracker: Tracker, solution: Solution) -> tuple[ChannelGraph, tuple[str, ...]]:
    """The graph, and the modules whose lanes are no groups of the same size, so that they have to be merged first."""
    numbers = solution.numbers
    layouts = {}
    for node, value in tracker.layouts.items():
        folded = isinstance(value, Layout) and value.fold is not None and value.fold.box.active
        leaves = flat(tracker.layout(node) if folded else value)
        found = tuple({} if leaf is None else {d: numbers[ids] for d, ids in leaf.axes.items()} for leaf in leaves)
        if any(found):
            layouts[node.name] = found
    axes = {name: {axis: numbers[ids] for axis, ids in by.items()} for name, by in tracker.axes.items()}
    layers = {name: _numbered(layer, numbers) for name, layer in tracker.layers.items()}
    lanes = {name: tuple(numbers[ids] for ids in found) for name, found in tracker.lanes.items()}
    groups = find_groups(tracker.module, solution, layers, axes, layouts, lanes)
    gathers = {node: gather for node, gather in tracker.gathers.items() if gather.box is None or not gather.box.active}
    graph = ChannelGraph(
        groups=groups.groups,
        units=solution.units,
        compounds=solution.compounds,
        nodes=tuple(node.name for node in tracker.module.graph.nodes),
        members=groups.members,
        layouts=layouts,
        axes=axes,
        reordered={name: numbers[ids] for name, ids in tracker.reordered.items()},
        layers=layers,
        literals={
            node.name: tuple(replace(literal, ids=numbers[literal.ids]) for literal in found)
            for node, found in tracker.literals.items()
        },
        pieces={
            node.name: Pieces(found.dim, tuple(numbers[part] for part in found.parts))
            for node, found in tracker.pieces.items()
        },
        gathers={node.name: replace(gather, ids=numbers[gather.ids], box=None) for node, gather in gathers.items()},
        paddings={
            node.name: tuple(replace(padding, ids=numbers[padding.ids]) for padding in found)
            for node, found in tracker.paddings.items()
        },
        constants={
            node.name: replace(constant, ids=numbers[constant.ids]) for node, constant in tracker.constants.items()
        },
        protected=groups.protected,
        left_out=groups.left_out,
    )
    return graph, groups.uneven


def _numbered(layer: LayerChannels, numbers: Units) -> LayerChannels:
    inputs, reads, groups = (None if ids is None else numbers[ids] for ids in (layer.inputs, layer.reads, layer.groups))
    return replace(layer, outputs=numbers[layer.outputs], inputs=inputs, reads=reads, groups=groups)


__all__ = ["ChannelGraph", "ChannelGroup", "analyse"]

"""Which channels of a model may be removed together, by exact propagation of channel ids through its graph.

Producers (convolutions, linear layers, embeddings) give every output channel an id; elementwise calls pass ids on and
join those that meet; concatenation, slicing, padding and flattening move them about. A unit is a set of joined ids: it
is removed everywhere at once. Units that occur in the same places in the same way form a group; any of them may go.
The idea of coupled groups is that of DepGraph (Fang et al. 2023, arXiv:2301.12900); positions instead of whole layers
make it exact through padding, slices and concatenations. Cost: linear in nodes times channels.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import fx

from compressors.channel_layers import layer_layout
from compressors.channel_rules import function_layout
from compressors.channel_tracking import Ids, LayerChannels, Layout, Literal, Pieces, Tracker
from compressors.errors import InvalidRecipe
from compressors.module_tree import get_tensor
from compressors.shape_recording import record_shapes

Units = NDArray[np.int64]
Kept = NDArray[np.bool_]


@dataclass(frozen=True)
class ChannelGroup:
    """Units that may be removed independently of each other.

    name: first producing layer, with '#2', '#3', … for its further groups. size: number of units. layers: producers,
    in order of use. consumers: layers that read them.
    """

    name: str
    size: int
    layers: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True)
class ChannelGraph:
    """Result of `analyse`; refers to nodes and tensors by name, so it holds for deep copies of the model too.

    Everything that is called ids in `channel_tracking` is a unit number here, 0 <= unit < units.
    nodes: names of the model's nodes. members: units of each group. left_out: reason per group that must not be used.
    layouts: per node, dimension and units per position of each tensor it yields. axes: per stored tensor, units along
    its sliced dimensions.
    """

    groups: tuple[ChannelGroup, ...]
    units: int
    nodes: tuple[str, ...]
    members: Mapping[str, Units]
    layouts: Mapping[str, tuple[tuple[int, Units] | None, ...]]
    axes: Mapping[str, Mapping[int, Units]]
    layers: Mapping[str, LayerChannels]
    literals: Mapping[str, tuple[Literal, ...]]
    pieces: Mapping[str, Pieces]
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
        """Mask over all units. removed: per group, indices (0 <= index < size) of the units that go."""
        kept: Kept = np.ones(self.units, dtype=np.bool_)
        for name, indices in removed.items():
            kept[self.members[name][np.asarray(list(indices), dtype=np.int64)]] = False
        return kept

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
        elif node.op == "call_function" and node.target is operator.getitem:
            value = tracker.layouts.get(node.args[0])
            tracker.layouts[node] = value[node.args[1]] if isinstance(value, list) else None
        elif node.op == "call_function":
            tracker.layouts[node] = function_layout(tracker, node)
        elif node.op == "output":
            for source in node.all_input_nodes:
                tracker.protect_value(source, "it is an output of the model")
    _tie(tracker)
    return _graph(tracker)


def _tie(tracker: Tracker) -> None:
    """A tensor stored under two names is sliced once: its axes are joined, one that only one name slices is fixed."""
    names: dict[int, str] = {}
    whole = {str(node.target) for node in tracker.module.graph.find_nodes(op="get_attr")} - tracker.axes.keys()
    for name in [*tracker.axes, *sorted(whole)]:
        tensor = get_tensor(tracker.module, name)
        first = names.setdefault(id(tensor), name)
        if first == name and name not in whole:
            continue
        ours, theirs = tracker.axes.get(name, {}), tracker.axes.get(first, {})
        for axis in ours.keys() | theirs.keys():
            if axis in ours and axis in theirs:
                tracker.join(ours[axis], theirs[axis])
            else:
                ids = ours[axis] if axis in ours else theirs[axis]
                tracker.protect(ids, f"{name} is shared with {first}, which needs it whole")


def _graph(tracker: Tracker) -> ChannelGraph:
    unit_of = _components(tracker)
    units = int(unit_of.max()) + 1 if len(unit_of) else 0
    layouts = {
        node.name: tuple(
            None if layout is None else (layout.dim, unit_of[layout.ids])
            for layout in (value if isinstance(value, list) else [value])
        )
        for node, value in tracker.layouts.items()
        if value is not None
    }
    axes = {name: {axis: unit_of[ids] for axis, ids in by.items()} for name, by in tracker.axes.items()}
    layers = {
        name: replace(
            layer, outputs=unit_of[layer.outputs], inputs=None if layer.inputs is None else unit_of[layer.inputs]
        )
        for name, layer in tracker.layers.items()
    }
    removable, reasons = _removable(tracker, unit_of, units)
    groups, members = _groups(layers, removable, _signatures(units, layouts, axes))
    literals = {
        node.name: tuple(replace(literal, ids=unit_of[literal.ids]) for literal in found)
        for node, found in tracker.literals.items()
    }
    pieces = {
        node.name: Pieces(found.dim, tuple(unit_of[part] for part in found.parts))
        for node, found in tracker.pieces.items()
    }
    protected = {
        name: reasons[int(layer.outputs[0])]
        for name, layer in layers.items()
        if layer.produces and int(layer.outputs[0]) in reasons
    }
    nodes = tuple(node.name for node in tracker.module.graph.nodes)
    return ChannelGraph(groups, units, nodes, members, layouts, axes, layers, literals, pieces, protected)


def _components(tracker: Tracker) -> Ids:
    """Unit number per id: connected components of the joins."""
    empty = np.empty(0, dtype=np.int64)
    first = np.concatenate([empty, *(a for a, _ in tracker.edges)])
    second = np.concatenate([empty, *(b for _, b in tracker.edges)])
    if tracker.count == 0:
        return empty
    matrix = coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=(tracker.count, tracker.count))
    return np.asarray(connected_components(matrix, directed=False)[1], dtype=np.int64)


def _removable(tracker: Tracker, unit_of: Ids, units: int) -> tuple[Kept, dict[int, str]]:
    """Units that some layer produces and nothing protects, and the first reason per protected unit."""
    removable: Kept = np.zeros(units, dtype=np.bool_)
    for layer in tracker.layers.values():
        if layer.produces:
            removable[unit_of[layer.outputs]] = True
    reasons: dict[int, str] = {}
    for ids, reason in tracker.reasons:
        removable[unit_of[ids]] = False
        for unit in np.unique(unit_of[ids]):
            reasons.setdefault(int(unit), reason)
    return removable, reasons


def _signatures(
    units: int,
    layouts: Mapping[str, tuple[tuple[int, Units] | None, ...]],
    axes: Mapping[str, Mapping[int, Units]],
) -> NDArray[np.uint64]:
    """(units, 2): a hash of where, and how often, each unit occurs. Sums of random words, so order does not matter."""
    places = [found[1] for value in layouts.values() for found in value if found is not None]
    places += [found for by in axes.values() for found in by.values()]
    words = np.random.default_rng(0).integers(1, 2**63, size=(len(places), 2), dtype=np.uint64)
    signatures = np.zeros((units, 2), dtype=np.uint64)
    for place, word in zip(places, words, strict=True):
        np.add.at(signatures, place, word)
    return signatures


def _groups(
    layers: Mapping[str, LayerChannels], removable: Kept, signatures: NDArray[np.uint64]
) -> tuple[tuple[ChannelGroup, ...], dict[str, Units]]:
    producers = {name: np.unique(layer.outputs) for name, layer in layers.items() if layer.produces or layer.depthwise}
    readers = {name: np.unique(layer.inputs) for name, layer in layers.items() if layer.inputs is not None}
    seen: set[int] = set()
    found: list[tuple[str, Units]] = []
    for name in (name for name, layer in layers.items() if layer.produces):
        by_signature: dict[bytes, list[int]] = {}
        for unit in dict.fromkeys(layers[name].outputs.tolist()):
            if removable[unit] and unit not in seen:
                by_signature.setdefault(signatures[unit].tobytes(), []).append(unit)
        seen.update(*by_signature.values())
        several = [units for units in by_signature.values() if len(units) > 1]
        for count, units in enumerate(several, 1):
            found.append((name if count == 1 else f"{name}#{count}", np.asarray(units, dtype=np.int64)))
    groups = tuple(
        ChannelGroup(
            name=name,
            size=len(group),
            layers=tuple(layer for layer, outputs in producers.items() if np.isin(group[0], outputs)),
            consumers=tuple(layer for layer, inputs in readers.items() if np.isin(group[0], inputs)),
        )
        for name, group in found
    )
    return groups, dict(found)


__all__ = ["ChannelGraph", "ChannelGroup", "Layout", "analyse"]

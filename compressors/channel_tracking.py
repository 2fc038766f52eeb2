"""State of the channel analysis: which position of which tensor dimension belongs to which channel.

Every position along a tracked dimension carries an id. Ids that must live or die together are joined by edges; ids
that must live are protected. A compound id stands for a position that lives only while several others do: position
h * d + i of merged attention heads lives while head h and place i do. `channel_solving` turns ids into units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from compressors.module_tree import get_tensor

Ids = NDArray[np.int64]
Shape = tuple[int, ...]


@dataclass
class Box:
    """One dimension that a view splits into several: what is removed must leave a full grid.

    factors: ids per axis of the grid, None along an axis that all positions share. active: some call computes on the
    split tensor. Otherwise only moves it about, and the calls that do so are replaced by one gather.
    """

    ids: Ids
    factors: tuple[Ids | None, ...]
    active: bool = False


@dataclass(frozen=True)
class Fold:
    """A tensor whose dimensions `dims` are those of a box, in its order, while that is not active.

    positions: over the box, places along dimension `source_dim` of `source`, the node before the split. trace: for
    each dimension the source's that it equals, -1 for those of the box, None for one of length 1.
    """

    box: Box
    dims: tuple[int, ...]
    positions: Ids
    source: fx.Node
    source_dim: int
    trace: tuple[int | None, ...]


@dataclass(frozen=True)
class Layout:
    """Ids along the tracked dimensions (not negative) of a tensor; an element lives while all its ids do.

    Ids fewer than a dimension is long repeat along it: rows of the batch were merged with them, outermost.
    lanes: of recurrent states (layers * directions, batch, units), ids of the last dimension per index of the first.
    """

    axes: Mapping[int, Ids] = field(default_factory=dict)
    fold: Fold | None = None
    lanes: tuple[Ids, ...] = ()

    def without(self, dim: int) -> Layout:
        return Layout({d: ids for d, ids in self.axes.items() if d != dim})

    def moved(self, new: Mapping[int, int]) -> Layout:
        """The layout after dimension d has become new[d]; dimensions not in `new` are dropped."""
        return Layout({new[d]: ids for d, ids in self.axes.items() if d in new})


NOTHING = Layout()
Tracked = Layout | list[Any] | None


@dataclass(frozen=True)
class Literal:
    """A size written into a call: argument `name` (element `index` of it) is `times` the number of kept `ids`."""

    name: str
    index: int | None
    ids: Ids
    times: int = 1


@dataclass(frozen=True)
class Pieces:
    """A split along the channel dimension: the sizes of its parts are the numbers of kept ids."""

    dim: int
    parts: tuple[Ids, ...]


@dataclass(frozen=True)
class Gather:
    """The call takes positions of `source` along `dim` in another order: result[i] = source[positions[i]].

    ids: of the source. box: for calls that go through a split view; while that is active, they stay as they are.
    """

    source: str
    dim: int
    ids: Ids
    positions: Ids
    box: Box | None = None


@dataclass(frozen=True)
class Padding:
    """The call mixes the positions along `dim`: it runs on its input, padded with zeros to the length it had.

    The padding stands behind what is kept. rank: of the input. result_dim: of the result, which is cut again; None if
    it has none.
    """

    rank: int
    dim: int
    ids: Ids
    result_dim: int | None


@dataclass(frozen=True)
class Constant:
    """Argument `name` is written out, with the value that it had by default, once any of `ids` is removed."""

    name: str
    value: float
    ids: Ids


@dataclass
class LayerChannels:
    """Ids of a layer's two sides. Normalisation layers have only `outputs`.

    reads: inputs that each output reads, where those are not all: positions inside a group of a grouped convolution.
    groups: one id per group of such a convolution. depthwise: every output reads a single input. produces: outputs
    exist because of this layer. group_width: of normalisation groups, channels that stay together; 0 otherwise.
    weights: names of its matrices, with the axes that outputs and inputs lie along (None: along no axis).
    """

    outputs: Ids
    inputs: Ids | None = None
    reads: Ids | None = None
    groups: Ids | None = None
    produces: bool = False
    depthwise: bool = False
    group_width: int = 0
    weights: tuple[tuple[str, int | None, int | None], ...] = ()


@dataclass
class Tracker:
    """shapes: of every node's value in one forward pass (see `record_shapes`).

    axes: per stored tensor, ids along its sliced dimensions. reordered: per stored vector, ids of its entries, which
    are not removed but moved behind the kept ones. compounds: per compound id, its factors and the size of the grid.
    marks: ids by what is known of them: 'heads' that attention runs along, 'groups' of grouped convolutions.
    lanes: vectors of ids that must lose equally many, by the module that wants it.
    """

    module: fx.GraphModule
    shapes: dict[fx.Node, Any]
    layouts: dict[fx.Node, Tracked] = field(default_factory=dict)
    layers: dict[str, LayerChannels] = field(default_factory=dict)
    axes: dict[str, dict[int, Ids]] = field(default_factory=dict)
    reordered: dict[str, Ids] = field(default_factory=dict)
    literals: dict[fx.Node, list[Literal]] = field(default_factory=dict)
    pieces: dict[fx.Node, Pieces] = field(default_factory=dict)
    gathers: dict[fx.Node, Gather] = field(default_factory=dict)
    paddings: dict[fx.Node, list[Padding]] = field(default_factory=dict)
    constants: dict[fx.Node, Constant] = field(default_factory=dict)
    reasons: list[tuple[Ids, str]] = field(default_factory=list)
    edges: list[tuple[Ids, Ids]] = field(default_factory=list)
    compounds: dict[int, tuple[tuple[int, ...], Shape]] = field(default_factory=dict)
    marks: list[tuple[str, Ids]] = field(default_factory=list)
    lanes: dict[str, tuple[Ids, ...]] = field(default_factory=dict)
    count: int = 0
    _known: dict[tuple[int, ...], int] = field(default_factory=dict)

    def fresh(self, count: int) -> Ids:
        ids = np.arange(self.count, self.count + count, dtype=np.int64)
        self.count += count
        return ids

    def join(self, first: Ids, second: Ids) -> None:
        if first is not second:
            self.edges.append((first.ravel(), second.ravel()))

    def protect(self, ids: Ids, reason: str) -> None:
        self.reasons.append((ids.ravel(), reason))

    def compose(self, *factors: Ids) -> Ids:
        """Ids over the grid of `factors` (one vector per axis), flattened; each lives while its factors all do.

        Axes of length 1 count as having no factor.
        """
        sizes = tuple(len(ids) for ids in factors if len(ids) > 1)
        grids = np.meshgrid(*(ids for ids in factors if len(ids) > 1), indexing="ij")
        if not grids:
            return factors[0]
        if len(grids) == 1:
            return grids[0]
        return np.array([self._compound(key, sizes) for key in zip(*(g.ravel().tolist() for g in grids), strict=True)])

    def _compound(self, factors: tuple[int, ...], sizes: Shape) -> int:
        if factors not in self._known:
            (new,) = self.fresh(1).tolist()
            self._known[factors] = new
            self.compounds[new] = (factors, sizes)
        return self._known[factors]

    def protect_value(self, node: Any, reason: str) -> None:
        """Protects whatever is tracked of a node's value."""
        for layout in self.leaves(node):
            for ids in layout.axes.values():
                self.protect(ids, reason)

    def merge_lanes(self, lanes: Sequence[Ids]) -> None:
        """Unit i of all lanes becomes one."""
        for ids in lanes[1:]:
            self.join(lanes[0], ids)

    def leaves(self, node: Any) -> list[Layout]:
        """Layouts of all tensors that a node yields."""
        value = self._unfolded(node) if isinstance(node, fx.Node) else None
        return [layout for layout in flat(value) if layout is not None]

    def layout(self, node: Any) -> Layout:
        """Layout of a node that is one tensor; empty if nothing is tracked. Activates the box of a split tensor."""
        value = self._unfolded(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, Layout) else NOTHING

    def ids(self, node: Any, dim: int) -> Ids | None:
        """Ids of every position along `dim`, None if that is not tracked."""
        ids = self.layout(node).axes.get(dim)
        return None if ids is None else np.tile(ids, self.shapes[node][dim] // len(ids))

    def meet(self, operands: Sequence[tuple[fx.Node, int]], reason: str) -> Ids | None:
        """Ids of a dimension where dimensions of several tensors meet: joined, or protected if one is not tracked."""
        found = [self.layout(source).axes.get(dim) for source, dim in operands]
        known = [ids for ids in found if ids is not None]
        if len(known) < len(found):
            for ids in known:
                self.protect(ids, reason)
            return None
        if len({len(ids) for ids in known}) > 1:
            whole = (self.ids(source, dim) for source, dim in operands)
            known = [ids for ids in whole if ids is not None]
        for ids in known[1:]:
            self.join(known[0], ids)
        return known[0] if known else None

    def folded(self, node: Any) -> Layout:
        """The same for calls that only move a split tensor about: its box stays as it is."""
        value = self.layouts.get(node) if isinstance(node, fx.Node) else None
        moves = isinstance(value, Layout) and value.fold is not None and not value.fold.box.active
        return value if isinstance(value, Layout) and moves else self.layout(node)

    def lanes_of(self, node: Any) -> tuple[Ids, ...]:
        """Lanes of recurrent states that nothing has combined yet."""
        value = self.layouts.get(node) if isinstance(node, fx.Node) else None
        return value.lanes if isinstance(value, Layout) else ()

    def _unfolded(self, node: fx.Node) -> Tracked:
        value = self.layouts.get(node)
        if isinstance(value, Layout) and value.lanes:
            self.merge_lanes(value.lanes)
            self.layouts[node] = Layout({len(self.shapes[node]) - 1: value.lanes[0]})
            return self.layouts[node]
        if not isinstance(value, Layout) or value.fold is None:
            return value
        fold = value.fold
        self.activate(fold.box)
        axes = dict(value.axes)
        for dim, factor in zip(fold.dims, fold.box.factors, strict=True):
            if factor is not None:
                axes[dim] = factor
        self.layouts[node] = Layout(axes)
        return self.layouts[node]

    def activate(self, box: Box) -> None:
        if not box.active:
            box.active = True
            varying = tuple(slice(None) if ids is not None else 0 for ids in box.factors)
            factors = [ids for ids in box.factors if ids is not None]
            self.join(self.compose(*factors), box.ids[varying])

    def shape(self, node: Any) -> Shape | None:
        """Shape of a node that is one tensor, else None."""
        value = self.shapes.get(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, tuple) else None

    def store(self, node: fx.Node) -> Layout:
        """Tracks all dimensions of a stored tensor, so that it is sliced with what it is combined with."""
        name = str(node.target)
        if name not in self.axes:
            shape = self.shapes[node]
            self.axes[name] = {dim: self.fresh(size) for dim, size in enumerate(shape) if size > 1}
        return Layout(self.axes[name])

    def produce(self, name: str, outputs: Ids, inputs: Ids | None = None) -> None:
        """Declares a stored tensor that a function reads as its weight: a layer without a module."""
        if name not in self.layers:
            where = {id(ids): axis for axis, ids in self.axes[name].items()}
            weights = ((name, where.get(id(outputs)), where.get(id(inputs))),)
            self.layers[name] = LayerChannels(outputs, inputs, produces=True, weights=weights)

    def parameter(self, node: Any) -> str | None:
        """Name of the trained tensor of two dimensions or more that a node reads."""
        if not isinstance(node, fx.Node) or node.op != "get_attr":
            return None
        tensor = get_tensor(self.module, str(node.target))
        return str(node.target) if isinstance(tensor, nn.Parameter) and tensor.dim() > 1 else None


def flat(value: Tracked) -> Sequence[Layout | None]:
    """Layouts of all tensors of a value in the order of its leaves."""
    if isinstance(value, list):
        return [layout for item in value for layout in flat(item)]
    return [value]

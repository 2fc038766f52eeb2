"""State of the channel analysis: which position of which tensor dimension belongs to which channel.

Every position along a tensor's channel dimension carries an id. Ids that must live or die together are joined by
edges; ids that must live are protected. The connected components of the edges are the units of pruning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import fx

Ids = NDArray[np.int64]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """ids: one per position along dimension `dim` (not negative) of a tensor."""

    dim: int
    ids: Ids


@dataclass(frozen=True)
class Literal:
    """A size written into a call: argument `name` (element `index` of it) must equal the number of kept `ids`."""

    name: str
    index: int | None
    ids: Ids


@dataclass(frozen=True)
class Pieces:
    """A split along the channel dimension: the sizes of its parts are the numbers of kept ids."""

    dim: int
    parts: tuple[Ids, ...]


@dataclass
class LayerChannels:
    """Ids of a layer's two sides. Normalisation layers and raw parameters have only `outputs`.

    depthwise: inputs pass through, one filter or more each. group_width: for grouped layers, channels per group that
    must stay together (normalisation groups); 0 otherwise.
    """

    outputs: Ids
    inputs: Ids | None = None
    produces: bool = False
    depthwise: bool = False
    group_width: int = 0


Tracked = Layout | list["Layout | None"] | None


@dataclass
class Tracker:
    """shapes: of every node's value in one forward pass (see `record_shapes`)."""

    module: fx.GraphModule
    shapes: dict[fx.Node, Any]
    layouts: dict[fx.Node, Tracked] = field(default_factory=dict)
    layers: dict[str, LayerChannels] = field(default_factory=dict)
    axes: dict[str, dict[int, Ids]] = field(default_factory=dict)
    literals: dict[fx.Node, list[Literal]] = field(default_factory=dict)
    pieces: dict[fx.Node, Pieces] = field(default_factory=dict)
    reasons: list[tuple[Ids, str]] = field(default_factory=list)
    edges: list[tuple[Ids, Ids]] = field(default_factory=list)
    count: int = 0

    def fresh(self, count: int) -> Ids:
        ids = np.arange(self.count, self.count + count, dtype=np.int64)
        self.count += count
        return ids

    def join(self, first: Ids, second: Ids) -> None:
        self.edges.append((first, second))

    def protect(self, ids: Ids, reason: str) -> None:
        self.reasons.append((ids, reason))

    def protect_value(self, node: Any, reason: str) -> None:
        value = self.layouts.get(node) if isinstance(node, fx.Node) else None
        for layout in value if isinstance(value, list) else [value]:
            if layout is not None:
                self.protect(layout.ids, reason)

    def layout(self, node: Any) -> Layout | None:
        value = self.layouts.get(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, Layout) else None

    def shape(self, node: Any) -> Shape | None:
        """Shape of a node that is one tensor, else None."""
        value = self.shapes.get(node) if isinstance(node, fx.Node) else None
        return value if isinstance(value, tuple) else None

    def stored_layout(self, node: fx.Node, dim: int) -> Layout | None:
        """Starts to track a stored tensor along `dim`, so that it is sliced with what it is combined with.

        Only for one that a single call reads: another reader might need it whole.
        """
        shape = self.shape(node)
        if node.op != "get_attr" or len(node.users) != 1 or shape is None:
            return None
        layout = Layout(dim, self.fresh(shape[dim]))
        self.layouts[node] = layout
        self.axes.setdefault(str(node.target), {})[dim] = layout.ids
        return layout

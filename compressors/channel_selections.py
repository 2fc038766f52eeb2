"""How channels pass through calls that take parts of a tensor or put parts together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from compressors.aten_modules import Arguments
from compressors.channel_rule_table import RuleTable, protect_all
from compressors.channel_tracking import Gather, Ids, Layout, Literal, Pieces, Tracked, Tracker
from compressors.module_tree import get_tensor

SELECTIONS = RuleTable()
FIXED = "a tensor whose channels are fixed"
_LAST = 2**62


@SELECTIONS("cat")
def _cat(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    rank = len(tracker.shapes[node])
    joined = a["dim"] % rank
    sources = [source for source in a["tensors"] if len(tracker.shapes[source]) == rank]
    axes: dict[int, Ids] = {}
    for dim in range(rank):
        if dim != joined:
            ids = tracker.meet([(source, dim) for source in sources], f"{node.name}: joined with {FIXED}")
        else:
            ids = _concatenated(tracker, node, sources, dim)
        if ids is not None:
            axes[dim] = ids
    return Layout(axes)


def _concatenated(tracker: Tracker, node: fx.Node, sources: Sequence[fx.Node], dim: int) -> Ids | None:
    parts = [tracker.ids(source, dim) for source in sources]
    if all(ids is None for ids in parts):
        return None
    sizes = [tracker.shapes[source][dim] for source in sources]
    return np.concatenate(
        [_fixed(tracker, size, node) if ids is None else ids for ids, size in zip(parts, sizes, strict=True)]
    )


def _fixed(tracker: Tracker, count: int, node: fx.Node) -> Ids:
    ids = tracker.fresh(count)
    tracker.protect(ids, f"{node.name}: a part whose channels are fixed")
    return ids


@SELECTIONS("stack")
def _stack(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    rank = len(tracker.shapes[node])
    new = a["dim"] % rank
    axes: dict[int, Ids] = {}
    for dim in range(rank - 1):
        ids = tracker.meet([(source, dim) for source in a["tensors"]], f"{node.name}: stacked on {FIXED}")
        if ids is not None:
            axes[dim + (dim >= new)] = ids
    return Layout(axes)


@SELECTIONS("split", "split_with_sizes", "chunk", "tensor_split.sections", "unsafe_split", "unsafe_chunk")
def _split(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    shapes = tracker.shapes[node]
    dim = a["dim"] % len(shapes[0])
    ids = tracker.ids(a["self"], dim)
    if ids is None:
        return [layout for _ in shapes]
    parts = tuple(np.split(ids, np.cumsum([shape[dim] for shape in shapes])[:-1]))
    tracker.pieces[node] = Pieces(dim, parts)
    return [Layout({**layout.axes, dim: part}) for part in parts]


@SELECTIONS("slice")
def _slice(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    dim = a["dim"] % len(tracker.shapes[node])
    ids = tracker.ids(a["self"], dim)
    if ids is None:
        return layout
    start, end = (0 if a["start"] is None else a["start"]), (_LAST if a["end"] is None else a["end"])
    if not all(isinstance(number, int) for number in (start, end, a["step"])):
        return protect_all(tracker, node, "takes a computed range of channels")
    taken = np.arange(len(ids))[start : end : a["step"]]
    if len(taken) == len(ids):
        return layout
    if a["step"] != 1:
        return _taken(tracker, node, a["self"], dim, taken)
    first, last, _ = slice(start, end).indices(len(ids))
    tracker.literals[node] = [Literal("start", None, ids[:first]), Literal("end", None, ids[:last])]
    return Layout({**layout.axes, dim: ids[taken]})


def _taken(tracker: Tracker, node: fx.Node, source: fx.Node, dim: int, positions: Ids) -> Layout:
    layout, ids = tracker.layout(source), tracker.ids(source, dim)
    assert ids is not None
    tracker.gathers[node] = Gather(source.name, dim, ids, positions)
    return Layout({**layout.axes, dim: ids[positions]})


@SELECTIONS("flip", "roll")
def _turn(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    rank = len(tracker.shapes[node])
    dims = [dim % rank for dim in a["dims"]] or list(range(rank))
    turned = [dim for dim in dims if dim in layout.axes]
    if not turned:
        return layout
    if len(dims) > 1:
        return protect_all(tracker, node, "turns channels and others")
    order = np.arange(tracker.shapes[node][turned[0]])
    positions = np.roll(order, a["shifts"][0]) if "shifts" in a else order[::-1]
    return _taken(tracker, node, a["self"], turned[0], positions)


@SELECTIONS("index_select")
def _index_select(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    dim = a["dim"] % len(tracker.shapes[node])
    if dim not in layout.axes:
        return layout
    index = a["index"]
    stored = get_tensor(tracker.module, str(index.target)) if index.op == "get_attr" else None
    if stored is None:
        return protect_all(tracker, node, "takes computed channels")
    return _taken(tracker, node, a["self"], dim, stored.cpu().numpy())


@SELECTIONS("select.int")
def _select(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """The one position that is taken stays; those before it may go."""
    shape = tracker.shapes[a["self"]]
    dim = a["dim"] % len(shape)
    lanes = tracker.lanes_of(a["self"])
    if lanes and dim == 0 and isinstance(a["index"], int):
        return Layout({len(shape) - 2: lanes[a["index"]]})
    layout = tracker.layout(a["self"])
    ids, index = tracker.ids(a["self"], dim), a["index"]
    if ids is not None:
        if not isinstance(index, int):
            return protect_all(tracker, node, "picks one channel")
        index %= len(ids)
        tracker.protect(ids[index : index + 1], f"{node.name}: picks it")
        tracker.literals[node] = [Literal("index", None, ids[:index])]
    return _dropped(layout, dim, len(shape))


@SELECTIONS("unbind")
def _unbind(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout, rank = tracker.layout(a["self"]), len(tracker.shapes[a["self"]])
    dim = a["dim"] % rank
    if dim in layout.axes:
        tracker.protect(layout.axes[dim], f"{node.name}: takes each on its own")
    return [_dropped(layout, dim, rank) for _ in tracker.shapes[node]]


def _dropped(layout: Layout, dim: int, rank: int) -> Layout:
    return layout.moved({d: d - (d > dim) for d in range(rank) if d != dim})


@SELECTIONS("pad", "constant_pad_nd")
def _pad(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """Padded channels are channels of their own, free to go with whatever they are added to."""
    layout = tracker.layout(a["self"])
    pads, rank = a["pad"], len(tracker.shapes[node])
    axes = dict(layout.axes)
    for dim in layout.axes:
        position = 2 * (rank - 1 - dim)
        front, back = pads[position : position + 2] if position + 1 < len(pads) else (0, 0)
        if (front, back) == (0, 0):
            continue
        known = all(isinstance(count, int) and count >= 0 for count in (front, back))
        if a.get("mode", "constant") != "constant" or not known:
            return protect_all(tracker, node, "pads channels with other channels or crops them")
        before, after = tracker.fresh(front), tracker.fresh(back)
        literals = [Literal("pad", position, before), Literal("pad", position + 1, after)]
        tracker.literals.setdefault(node, []).extend(literals)
        ids = tracker.ids(a["self"], dim)
        assert ids is not None
        axes[dim] = np.concatenate([before, ids, after])
    return Layout(axes)

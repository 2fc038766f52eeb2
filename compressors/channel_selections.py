"""How channels pass through calls that take parts of a tensor or put parts together."""

from __future__ import annotations

import numpy as np
from torch import fx

from compressors.aten_modules import Arguments
from compressors.channel_rule_table import RuleTable, protect_all
from compressors.channel_tracking import Gather, Ids, Layout, Literal, Pieces, Tracked, Tracker
from compressors.module_tree import get_tensor

SELECTIONS = RuleTable()
_LAST = 2**62


@SELECTIONS("cat")
def _cat(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    rank = len(tracker.shapes[node])
    joined = a["dim"] % rank
    sources = [source for source in a["tensors"] if len(tracker.shapes[source]) == rank]
    axes: dict[int, Ids] = {}
    for dim in range(rank):
        met = [tracker.layout(source).axes.get(dim) for source in sources]
        known = [ids for ids in met if ids is not None]
        if not known:
            continue
        if dim != joined:
            if len(known) == len(met):
                for ids in known[1:]:
                    tracker.join(known[0], ids)
                axes[dim] = known[0]
            else:
                for ids in known:
                    tracker.protect(ids, f"{node.name}: joined with a tensor whose channels are fixed")
            continue
        sizes = [tracker.shapes[source][dim] for source in sources]
        if any(ids is not None and len(ids) != size for ids, size in zip(met, sizes, strict=True)):
            return protect_all(tracker, node, "joins channels merged with the batch")
        axes[dim] = np.concatenate(
            [_fixed(tracker, n, node) if ids is None else ids for ids, n in zip(met, sizes, strict=True)]
        )
    return Layout(axes)


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
        met = [tracker.layout(source).axes.get(dim) for source in a["tensors"]]
        known = [ids for ids in met if ids is not None]
        if len(known) < len(met):
            for ids in known:
                tracker.protect(ids, f"{node.name}: stacked on a tensor whose channels are fixed")
        elif known:
            for ids in known[1:]:
                tracker.join(known[0], ids)
            axes[dim + (dim >= new)] = known[0]
    return Layout(axes)


@SELECTIONS("split", "split_with_sizes", "chunk", "tensor_split.sections", "unsafe_split", "unsafe_chunk")
def _split(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    shapes = tracker.shapes[node]
    dim = a["dim"] % len(shapes[0])
    if dim not in layout.axes:
        return [layout for _ in shapes]
    ends = np.cumsum([shape[dim] for shape in shapes])
    if ends[-1] != len(layout.axes[dim]):
        return protect_all(tracker, node, "splits channels merged with the batch")
    parts = tuple(np.split(layout.axes[dim], ends[:-1]))
    tracker.pieces[node] = Pieces(dim, parts)
    return [Layout({**layout.axes, dim: part}) for part in parts]


@SELECTIONS("slice")
def _slice(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    dim = a["dim"] % len(tracker.shapes[node])
    ids = layout.axes.get(dim)
    if ids is None:
        return layout
    start, end = (0 if a["start"] is None else a["start"]), (_LAST if a["end"] is None else a["end"])
    whole = len(ids) == tracker.shapes[a["self"]][dim]
    if not whole or not all(isinstance(number, int) for number in (start, end, a["step"])):
        return protect_all(tracker, node, "takes a computed range of channels")
    taken = np.arange(len(ids))[start : end : a["step"]]
    if len(taken) == len(ids):
        return layout
    if a["step"] != 1:
        return _taken(tracker, node, a["self"], layout, dim, taken)
    first, last, _ = slice(start, end).indices(len(ids))
    tracker.literals[node] = [Literal("start", None, ids[:first]), Literal("end", None, ids[:last])]
    return Layout({**layout.axes, dim: ids[taken]})


def _taken(tracker: Tracker, node: fx.Node, source: fx.Node, layout: Layout, dim: int, positions: Ids) -> Layout:
    ids = layout.axes[dim]
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
    ids = layout.axes[turned[0]]
    if len(dims) > 1 or len(ids) != tracker.shapes[node][turned[0]]:
        return protect_all(tracker, node, "turns channels and others")
    order = np.arange(len(ids))
    positions = np.roll(order, a["shifts"][0]) if "shifts" in a else order[::-1]
    return _taken(tracker, node, a["self"], layout, turned[0], positions)


@SELECTIONS("index_select")
def _index_select(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    dim = a["dim"] % len(tracker.shapes[node])
    if dim not in layout.axes:
        return layout
    index = a["index"]
    stored = get_tensor(tracker.module, str(index.target)) if index.op == "get_attr" else None
    if stored is None or len(layout.axes[dim]) != tracker.shapes[a["self"]][dim]:
        return protect_all(tracker, node, "takes computed channels")
    return _taken(tracker, node, a["self"], layout, dim, stored.cpu().numpy())


@SELECTIONS("select.int")
def _select(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """The one position that is taken stays; those before it may go."""
    layout, shape = tracker.layout(a["self"]), tracker.shapes[a["self"]]
    dim = a["dim"] % len(shape)
    ids, index = layout.axes.get(dim), a["index"]
    if ids is not None:
        if not isinstance(index, int) or len(ids) != shape[dim]:
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
    for dim, ids in layout.axes.items():
        position = 2 * (rank - 1 - dim)
        front, back = pads[position : position + 2] if position + 1 < len(pads) else (0, 0)
        if (front, back) == (0, 0):
            continue
        whole = len(ids) == tracker.shapes[a["self"]][dim]
        known = all(isinstance(count, int) and count >= 0 for count in (front, back))
        if a.get("mode", "constant") != "constant" or not known or not whole:
            return protect_all(tracker, node, "pads channels with other channels or crops them")
        before, after = tracker.fresh(front), tracker.fresh(back)
        literals = [Literal("pad", position, before), Literal("pad", position + 1, after)]
        tracker.literals.setdefault(node, []).extend(literals)
        axes[dim] = np.concatenate([before, ids, after])
    return Layout(axes)

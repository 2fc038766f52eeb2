"""How channels pass through views: merged dimensions become one of compound ids, split ones become a grid.

What is removed from a grid must leave a full one: whole rows (attention heads), whole columns (places in every head).
But where a grid is only turned and merged again, as in a channel shuffle, the detour is a reordering of known
positions: any channel may go, and the pruned model gathers what is left instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import fx

from compressors.aten_modules import Arguments
from compressors.channel_rule_table import RuleTable, protect_all
from compressors.channel_tracking import Box, Fold, Gather, Ids, Layout, Literal, Shape, Tracked, Tracker

VIEWS = RuleTable()


@dataclass(frozen=True)
class _Segment:
    """Dimensions before and after a view that hold the same values; those of length 1 belong to none."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def single(self) -> bool:
        return len(self.before) == len(self.after) == 1


def _segments(before: Shape, after: Shape) -> list[_Segment]:
    """The finest cut of both shapes into runs of dimensions of equal product."""
    result = []
    left = [dim for dim, size in enumerate(before) if size != 1]
    right = [dim for dim, size in enumerate(after) if size != 1]
    while left:
        ins, outs = [left.pop(0)], [right.pop(0)]
        while (a := math.prod(before[d] for d in ins)) != (b := math.prod(after[d] for d in outs)):
            (ins if a < b else outs).append((left if a < b else right).pop(0))
        result.append(_Segment(tuple(ins), tuple(outs)))
    return result


@VIEWS("view", "reshape", "_unsafe_view", "flatten", "squeeze", "unsqueeze", "unflatten", "view_copy")
def _reshape(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    if "dtype" in a:
        return protect_all(tracker, node, "reads the values as another type")
    source = a["self"]
    before, after = tracker.shapes[source], tracker.shapes[node]
    if 0 in before:
        return protect_all(tracker, node, "is empty")
    segments = _segments(before, after)
    layout = tracker.folded(source)
    if layout.fold is not None:
        moved = _move_fold(tracker, node, a, layout, layout.fold, segments)
        if moved is not None:
            return moved
        layout = tracker.layout(source)
    axes: dict[int, Ids] = {}
    grids: list[tuple[_Segment, tuple[int, ...], Ids]] = []
    for segment in segments:
        tracked = [dim for dim in segment.before if dim in layout.axes]
        if not tracked:
            continue
        found = _regroup(tracker, layout, segment, before, after)
        if found is None:
            for dim in tracked:
                tracker.protect(layout.axes[dim], f"{node.name}: regroups the channels")
            continue
        dims, ids = found
        varying = [axis for axis in range(ids.ndim) if (ids != ids.take([0], axis=axis)).any()]
        if len(varying) > 1:
            grids.append((segment, dims, ids))
        elif varying:
            axes[dims[varying[0]]] = ids[tuple(slice(None) if axis in varying else 0 for axis in range(ids.ndim))]
        else:
            tracker.protect(ids, f"{node.name}: leaves a single channel")
    for dim, ids in axes.items():
        _write_size(tracker, node, a, dim, ids, after[dim])
    return _split_grids(tracker, node, a, Layout(axes), segments, grids)


def _regroup(
    tracker: Tracker, layout: Layout, segment: _Segment, before: Shape, after: Shape
) -> tuple[tuple[int, ...], Ids] | None:
    """Dimensions after the view, and ids over them; the first may be longer than the ids, which then repeat along it.

    None if the ids do not fit the new dimensions.
    """
    dims = list(segment.before)
    outer = 1
    while dims[0] not in layout.axes:
        outer *= before[dims.pop(0)]
    outer *= before[dims[0]] // len(layout.axes[dims[0]])
    sizes = [before[dim] for dim in dims]
    sizes[0] = len(layout.axes[dims[0]])
    factors = [layout.axes[dims[0]]]
    factors += [
        np.tile(found, before[dim] // len(found)) for dim in dims[1:] if (found := layout.axes.get(dim)) is not None
    ]
    compact = [size if dim in layout.axes else 1 for dim, size in zip(dims, sizes, strict=True)]
    ids = np.broadcast_to(tracker.compose(*factors).reshape(compact), sizes)
    new = list(segment.after)
    while outer > 1 and outer % after[new[0]] == 0:
        outer //= after[new.pop(0)]
        if not new:
            return None
    if after[new[0]] % outer:
        return None
    return tuple(new), ids.reshape([after[new[0]] // outer, *(after[dim] for dim in new[1:])])


def _write_size(tracker: Tracker, node: fx.Node, a: Arguments, dim: int, ids: Ids, size: int) -> None:
    """Notes where the call names the size of `dim`."""
    for name in ("size", "shape", "sizes"):
        if name in a:
            index = dim - (a["dim"] % len(tracker.shapes[a["self"]]) if name == "sizes" else 0)
            if 0 <= index < len(a[name]) and a[name][index] != -1:
                literal = Literal(name, index, ids, size // len(ids))
                tracker.literals.setdefault(node, []).append(literal)


def _split_grids(
    tracker: Tracker,
    node: fx.Node,
    a: Arguments,
    layout: Layout,
    segments: Sequence[_Segment],
    grids: Sequence[tuple[_Segment, tuple[int, ...], Ids]],
) -> Layout:
    """Adds dimensions that are grids. A single one is kept as a fold if nothing else changes, several are active."""
    after = tracker.shapes[node]
    for segment, dims, ids in grids:
        varying = [bool((ids != ids.take([0], axis=axis)).any()) for axis in range(ids.ndim)]
        factors = tuple(tracker.fresh(n) if yes else None for n, yes in zip(ids.shape, varying, strict=True))
        box = Box(ids, factors)
        for dim, factor in zip(dims, factors, strict=True):
            if factor is not None:
                _write_size(tracker, node, a, dim, factor, after[dim])
        simple = len(segment.before) == 1 and dims == segment.after and ids.size == math.prod(after[d] for d in dims)
        if len(grids) == 1 and simple and all(other.single for other in segments if other is not segment):
            trace: list[int | None] = [None] * len(after)
            for other in segments:
                for dim in other.after:
                    trace[dim] = -1 if other is segment else other.before[0]
            fold = Fold(box, dims, np.arange(ids.size).reshape(ids.shape), a["self"], segment.before[0], tuple(trace))
            return replace(layout, fold=fold)
        tracker.activate(box)
        known = {dim: factor for dim, factor in zip(dims, factors, strict=True) if factor is not None}
        layout = Layout({**layout.axes, **known})
    return layout


def _move_fold(
    tracker: Tracker, node: fx.Node, a: Arguments, layout: Layout, fold: Fold, segments: Sequence[_Segment]
) -> Layout | None:
    """A view of a split tensor that keeps the grid, or merges it again into a reordering; None if it does neither."""
    after = tracker.shapes[node]
    merging = [s for s in segments if not s.single]
    if any(set(s.before) != set(fold.dims) or len(s.after) > 1 for s in merging):
        return None
    new = {s.before[0]: s.after[0] for s in segments if s.single}
    trace: list[int | None] = [None] * len(after)
    for old, dim in new.items():
        trace[dim] = fold.trace[old]
    axes = layout.moved(new).axes
    for dim, ids in axes.items():
        _write_size(tracker, node, a, dim, ids, after[dim])
    if not merging:
        return Layout(axes, replace(fold, dims=tuple(new[d] for d in fold.dims), trace=tuple(trace)))
    (merged,) = merging
    (target,) = merged.after
    shape = tracker.shapes[fold.source]
    trace[target] = fold.source_dim
    if len(shape) != len(after) or any(t != d and after[d] != 1 for d, t in enumerate(trace)):
        return None
    positions = fold.positions.transpose([fold.dims.index(dim) for dim in merged.before]).ravel()
    ids = fold.box.ids.ravel()[positions]
    _write_size(tracker, node, a, target, ids, after[target])
    tracker.gathers[node] = Gather(fold.source.name, fold.source_dim, fold.box.ids.ravel(), positions, fold.box)
    return Layout({**axes, target: ids})


@VIEWS("permute", "transpose.int", "t", "mT")
def _permute(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.folded(node.args[0])
    rank = len(tracker.shapes[node])
    order = list(range(rank))
    if "dims" in a:
        order = [dim % rank for dim in a["dims"]]
    elif "dim0" in a:
        first, second = a["dim0"] % rank, a["dim1"] % rank
        order[first], order[second] = order[second], order[first]
    elif rank > 1:
        order[-2:] = order[:-3:-1]
    new = {old: dim for dim, old in enumerate(order)}
    fold = layout.fold
    if fold is not None:
        fold = replace(fold, dims=tuple(new[d] for d in fold.dims), trace=tuple(fold.trace[old] for old in order))
    return Layout(layout.moved(new).axes, fold)


@VIEWS("contiguous", "clone", "alias", "detach", "lift_fresh_copy")
def _identity(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    return tracker.folded(node.args[0])


@VIEWS("expand")
def _expand(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """Copies along a dimension of length 1 are free to go with whatever they are combined with."""
    layout = tracker.layout(a["self"])
    before, after = tracker.shapes[a["self"]], tracker.shapes[node]
    shift = len(after) - len(before)
    axes: dict[int, Ids] = {}
    for dim, size in enumerate(a["size"]):
        old = dim - shift
        if old >= 0 and before[old] == after[dim]:
            ids = layout.axes.get(old)
        else:
            ids = tracker.fresh(after[dim]) if isinstance(size, int) else None
        if ids is not None:
            axes[dim] = ids
            _write_size(tracker, node, a, dim, ids, after[dim])
    return Layout(axes)


@VIEWS("repeat")
def _repeat(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    shift = len(a["repeats"]) - len(tracker.shapes[a["self"]])
    axes: dict[int, Ids] = {}
    for old, ids in layout.axes.items():
        count = a["repeats"][old + shift]
        if not isinstance(count, int):
            tracker.protect(ids, f"{node.name}: repeats the channels a computed number of times")
            continue
        axes[old + shift] = np.tile(ids, count)
    return Layout(axes)


@VIEWS("repeat_interleave.self_int")
def _repeat_each(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    if a["dim"] is None:
        return protect_all(tracker, node, "merges all dimensions")
    dim = a["dim"] % len(tracker.shapes[node])
    axes = dict(layout.axes)
    if dim in axes:
        axes[dim] = np.repeat(axes[dim], a["repeats"])
    return Layout(axes)

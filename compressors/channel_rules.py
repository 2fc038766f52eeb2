"""How channels pass through ATen functions: one rule per family of operators.

A function without a rule protects what it reads: nothing is removed that is not understood.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import fx

from compressors.aten_modules import Arguments, bound_arguments, operator_name
from compressors.channel_tracking import Ids, Layout, Literal, Pieces, Tracked, Tracker

Rule = Callable[[Tracker, fx.Node, Arguments], Tracked]
_RULES: dict[str, Rule] = {}
_LAST = 2**62


def function_layout(tracker: Tracker, node: fx.Node) -> Tracked:
    """Layouts of the results of a `call_function` node on ATen operators."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    name = operator_name(node)
    rule = _RULES.get(name) or _RULES.get(name.split(".")[0])
    if rule is None and torch.Tag.pointwise in node.target.tags:
        rule = _pointwise
    if rule is None:
        return _protect_all(tracker, node, f"{name} has no rule")
    return rule(tracker, node, bound_arguments(node))


def _protect_all(tracker: Tracker, node: fx.Node, reason: str) -> Tracked:
    """Protects whatever `node` reads; its result carries no removable channels."""
    for source in node.all_input_nodes:
        tracker.protect_value(source, f"{node.name}: {reason}")
    return None


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for name in names:
            _RULES[name] = rule
        return rule

    return register


@_rule(
    "hardswish", "contiguous", "dropout", "alpha_dropout", "feature_alpha_dropout", "to", "_to_copy", "log_sigmoid",
    "zeros_like", "ones_like", "full_like", "detach", "alias", "lift_fresh_copy", "rrelu",
)  # fmt: skip
def _same(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    return tracker.layout(node.args[0])


def _pointwise(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """Broadcasting aligns the last dimensions; whatever meets at one position of the result is one channel."""
    rank = len(tracker.shapes[node])
    operands = [source for source in node.all_input_nodes if tracker.shape(source) is not None]
    offsets = {source: rank - len(tracker.shapes[source]) for source in operands}
    tracked = [(source, layout) for source in operands if (layout := tracker.layout(source)) and len(layout.ids) > 1]
    dims = {layout.dim + offsets[source] for source, layout in tracked}
    if not dims:
        return None
    if len(dims) > 1:
        return _protect_all(tracker, node, "combines channels along different dimensions")
    dim = dims.pop()
    first = tracked[0][1].ids
    for source in operands:
        own = dim - offsets[source]
        shape = tracker.shapes[source]
        if own < 0 or shape[own] == 1:
            continue
        layout = tracker.layout(source) or tracker.stored_layout(source, own)
        if layout is None:
            tracker.protect(first, f"{node.name}: combined with a tensor whose channels are fixed")
        elif layout.ids is not first:
            tracker.join(first, layout.ids)
    return Layout(dim, first)


@_rule("prelu", "_prelu_kernel", "instance_norm")
def _per_channel(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """Slopes, and norms whose statistics are each channel's own: stored tensors of one value per channel follow."""
    source, *others = node.args
    layout = tracker.layout(source)
    if layout is None:
        return None
    for other in others:
        shape = tracker.shape(other)
        if shape is None or math.prod(shape) == 1:
            continue
        assert isinstance(other, fx.Node)
        stored = tracker.stored_layout(other, 0) if layout.dim == 1 and len(shape) == 1 else None
        if stored is None:
            return _protect_all(tracker, node, "scales channels by values that are not its own")
        tracker.join(layout.ids, stored.ids)
    return layout


@_rule("cat")
def _cat(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    rank = len(tracker.shapes[node])
    dim = a["dim"] % rank
    sources = [source for source in a["tensors"] if len(tracker.shapes[source]) == rank]
    dims = {layout.dim for source in sources if (layout := tracker.layout(source))}
    if not dims:
        return None
    if len(dims) > 1:
        return _protect_all(tracker, node, "joins tensors with channels along different dimensions")
    channel_dim = dims.pop()
    layouts = [tracker.layout(source) for source in sources]
    if dim == channel_dim:
        parts = [
            layout.ids if layout else _fixed(tracker, tracker.shapes[source][dim], node)
            for source, layout in zip(sources, layouts, strict=True)
        ]
        return Layout(dim, np.concatenate(parts))
    known = [layout for layout in layouts if layout is not None]
    if len(known) < len(sources):
        return _protect_all(tracker, node, "joins a tensor whose channels are fixed")
    for layout in known[1:]:
        tracker.join(known[0].ids, layout.ids)
    return known[0]


def _fixed(tracker: Tracker, count: int, node: fx.Node) -> Ids:
    ids = tracker.fresh(count)
    tracker.protect(ids, f"{node.name}: a part whose channels are fixed")
    return ids


@_rule("split", "split_with_sizes", "chunk", "tensor_split.sections", "unsafe_split", "unsafe_chunk")
def _split(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    if layout is None:
        return None
    shapes = tracker.shapes[node]
    if a["dim"] % len(shapes[0]) != layout.dim:
        return [layout for _ in shapes]
    ends = np.cumsum([shape[layout.dim] for shape in shapes])
    parts = tuple(np.split(layout.ids, ends[:-1]))
    tracker.pieces[node] = Pieces(layout.dim, parts)
    return [Layout(layout.dim, part) for part in parts]


@_rule("slice")
def _slice(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    if layout is None or a["dim"] % len(tracker.shapes[node]) != layout.dim:
        return layout
    count = len(layout.ids)
    start, end = (0 if a["start"] is None else a["start"]), (_LAST if a["end"] is None else a["end"])
    if not isinstance(start, int) or not isinstance(end, int) or a["step"] != 1:
        return _protect_all(tracker, node, "takes every n-th channel or a computed range")
    first, last, _ = slice(start, end).indices(count)
    if (first, last) == (0, count):
        return layout
    tracker.literals[node] = [
        Literal("start", None, layout.ids[:first]),
        Literal("end", None, layout.ids[:last]),
    ]
    return Layout(layout.dim, layout.ids[first:last])


@_rule("pad", "constant_pad_nd")
def _pad(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """Padded channels are channels of their own, free to go with whatever they are added to."""
    layout = tracker.layout(a["self"])
    if layout is None:
        return None
    pads = a["pad"]
    position = 2 * (len(tracker.shapes[node]) - 1 - layout.dim)
    front, back = pads[position : position + 2] if position + 1 < len(pads) else (0, 0)
    if (front, back) == (0, 0):
        return layout
    if a.get("mode", "constant") != "constant" or not all(isinstance(n, int) and n >= 0 for n in (front, back)):
        return _protect_all(tracker, node, "pads channels with other channels or crops them")
    before, after = tracker.fresh(front), tracker.fresh(back)
    tracker.literals[node] = [Literal("pad", position, before), Literal("pad", position + 1, after)]
    return Layout(layout.dim, np.concatenate([before, layout.ids, after]))


@_rule("view", "reshape", "_unsafe_view", "flatten", "squeeze", "unsqueeze", "unflatten", "view_copy")
def _reshape(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """Merging keeps channels apart: (…, C, H, W) to C*H*W repeats every id H*W times. Splitting them is refused."""
    layout = tracker.layout(a["self"])
    if layout is None:
        return None
    before, after = tracker.shapes[a["self"]], tracker.shapes[node]
    outer, inner = math.prod(before[: layout.dim]), math.prod(before[layout.dim + 1 :])
    dim = _merged_dim(outer, inner, after)
    if dim is None or (dim == 0 and layout.dim != 0):
        return _protect_all(tracker, node, "splits the channels or merges them with the batch")
    tiles = outer // math.prod(after[:dim])
    repeats = inner // math.prod(after[dim + 1 :])
    ids = np.tile(np.repeat(layout.ids, repeats), tiles)
    if operator_name(node).startswith("unflatten") and dim >= a["dim"] % len(before):
        return _protect_all(tracker, node, "splits the channels")
    size = a.get("size", a.get("shape"))
    if size is not None:
        if isinstance(size[dim], fx.Node):
            return _protect_all(tracker, node, "computes the number of channels")
        if size[dim] != -1:
            tracker.literals[node] = [Literal("size" if "size" in a else "shape", dim, ids)]
    return Layout(dim, ids)


def _merged_dim(outer: int, inner: int, after: tuple[int, ...]) -> int | None:
    """Dimension of the new shape that holds every channel whole: exactly kept if possible, else merged with others."""
    candidates = []
    for dim in range(len(after)):
        left, right = math.prod(after[:dim]), math.prod(after[dim + 1 :])
        if left and right and outer % left == 0 and inner % right == 0:
            candidates.append((outer // left * (inner // right), dim))
    return min(candidates)[1] if candidates else None


@_rule("expand")
def _expand(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    if layout is None:
        return None
    dim = layout.dim + len(tracker.shapes[node]) - len(tracker.shapes[a["self"]])
    size = a["size"][dim]
    if tracker.shapes[node][dim] != len(layout.ids) or isinstance(size, fx.Node):
        return _protect_all(tracker, node, "copies a channel")
    if size != -1:
        tracker.literals[node] = [Literal("size", dim, layout.ids)]
    return Layout(dim, layout.ids)


@_rule("permute", "transpose.int", "t")
def _permute(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    if layout is None:
        return None
    rank = len(tracker.shapes[node])
    order = list(range(rank))
    if "dims" in a:
        order = [dim % rank for dim in a["dims"]]
    else:
        first, second = (a["dim0"] % rank, a["dim1"] % rank) if "dim0" in a else (0, rank - 1)
        order[first], order[second] = order[second], order[first]
    return Layout(order.index(layout.dim), layout.ids)


@_rule("mean.dim", "sum.dim_IntList", "amax", "amin", "var.dim", "var.correction", "std.dim", "std.correction")
def _reduce(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    if layout is None:
        return None
    rank = len(tracker.shapes[a["self"]])
    reduced = {dim % rank for dim in (a["dim"] or range(rank))}
    if layout.dim in reduced:
        return _protect_all(tracker, node, "reduces over the channels")
    lost = 0 if a["keepdim"] else sum(dim < layout.dim for dim in reduced)
    return Layout(layout.dim - lost, layout.ids)


@_rule("softmax.int", "_softmax", "log_softmax.int", "_log_softmax", "_safe_softmax", "cumsum", "flip")
def _along_a_dimension(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    if layout is None:
        return None
    dims = a["dims"] if "dims" in a else [a["dim"]]
    if layout.dim in {dim % len(tracker.shapes[node]) for dim in dims}:
        return _protect_all(tracker, node, "mixes the channels")
    return layout


@_rule("select.int")
def _select(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    if layout is None:
        return None
    dim = a["dim"] % len(tracker.shapes[a["self"]])
    if dim == layout.dim:
        return _protect_all(tracker, node, "picks one channel")
    return Layout(layout.dim - (dim < layout.dim), layout.ids)


@_rule(
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
    "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_nearest_exact2d",
)  # fmt: skip
def _spatial(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(node.args[0])
    if layout is None:
        return None
    results = tracker.shapes[node]
    several = isinstance(results, list)
    if layout.dim != 1 or len(results[0] if several else results) < 3:
        return _protect_all(tracker, node, "resamples along the channels")
    return [layout for _ in results] if several else layout


@_rule("sym_size")
def _size(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    if layout is not None and a["dim"] % len(tracker.shapes[a["self"]]) == layout.dim:
        return _protect_all(tracker, node, "reads the number of channels")
    return None

"""How channels pass through ATen functions: one rule per family of operators.

A function without a rule protects what it reads: nothing is removed that is not understood.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import fx

from compressors.aten_modules import Arguments, bound_arguments, operator_name
from compressors.channel_products import PRODUCTS
from compressors.channel_rule_table import RuleTable, protect_all
from compressors.channel_selections import SELECTIONS
from compressors.channel_tracking import NOTHING, Ids, Layout, Literal, Padding, Tracked, Tracker
from compressors.channel_views import VIEWS

RULES = RuleTable()
FIXED = "combined with a tensor whose channels are fixed"


def function_layout(tracker: Tracker, node: fx.Node) -> Tracked:
    """Layouts of the results of a `call_function` node on ATen operators."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return None
    name = operator_name(node)
    for table in (RULES, VIEWS, SELECTIONS, PRODUCTS):
        rule = table.get(name) or table.get(name.split(".")[0])
        if rule is not None:
            return rule(tracker, node, bound_arguments(node))
    if torch.Tag.pointwise in node.target.tags:
        return _pointwise(tracker, node, bound_arguments(node))
    return protect_all(tracker, node, f"{name} has no rule")


@RULES(
    "hardswish", "dropout", "alpha_dropout", "feature_alpha_dropout", "to", "_to_copy", "log_sigmoid", "zeros_like",
    "ones_like", "full_like", "rrelu",
)  # fmt: skip
def _same(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    return tracker.layout(node.args[0])


@RULES("expand_as", "where")
def _pointwise(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """Broadcasting aligns the last dimensions; whatever meets at one position of the result is one channel."""
    rank = len(tracker.shapes[node])
    operands = [source for source in node.all_input_nodes if tracker.shape(source) is not None]
    axes: dict[int, Ids] = {}
    for dim in range(rank):
        met = []
        for source in operands:
            shape = tracker.shapes[source]
            own = dim - rank + len(shape)
            if own >= 0 and (shape[own] > 1 or tracker.shapes[node][dim] == 1):
                met.append((source, own))
        ids = tracker.meet(met, f"{node.name}: {FIXED}")
        if ids is not None:
            axes[dim] = ids
    return Layout(axes)


@RULES("zeros", "ones", "full", "new_zeros", "new_ones", "new_full")
def _filled(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """One value everywhere: every dimension is free to go with whatever it is combined with."""
    axes: dict[int, Ids] = {}
    for dim, size in enumerate(a["size"]):
        if isinstance(size, int) and size > 1:
            axes[dim] = tracker.fresh(size)
            tracker.literals.setdefault(node, []).append(Literal("size", dim, axes[dim]))
    return Layout(axes)


@RULES("prelu", "_prelu_kernel", "instance_norm")
def _per_channel(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """Slopes, and norms whose statistics are each channel's own: stored tensors of one value per channel follow."""
    source, *others = (one for one in node.args if isinstance(one, fx.Node))
    layout = tracker.layout(source)
    if "eps" in a:
        for dim in [dim for dim in layout.axes if dim > 1]:
            tracker.protect(layout.axes[dim], f"{node.name}: normalises over them")
            layout = layout.without(dim)
    for other in others:
        shape = tracker.shape(other)
        if shape is not None and math.prod(shape) > 1:
            tracker.meet([(source, 1), (other, 0)], f"{node.name}: {FIXED}")
    return layout


@RULES("glu")
def _gated(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """The first half times the sigmoid of the second: the halves are one."""
    layout = tracker.layout(a["self"])
    dim = a["dim"] % len(tracker.shapes[node])
    if dim not in layout.axes:
        return layout
    first, second = np.split(layout.axes[dim], 2)
    tracker.join(first, second)
    return Layout({**layout.axes, dim: first})


@RULES("pixel_shuffle", "pixel_unshuffle")
def _pixel_shuffle(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """Channels become pixels in squares (Shi et al. 2016), and back."""
    rank = len(tracker.shapes[node])
    ids = tracker.layout(a["self"]).axes.get(rank - 3)
    if ids is None:
        return protect_all(tracker, node, "moves pixels")
    if "upscale_factor" in a:
        square = a["upscale_factor"] ** 2
        tracker.join(np.repeat(ids[::square], square), ids)
        return Layout({rank - 3: ids[::square]})
    return Layout({rank - 3: np.repeat(ids, a["downscale_factor"] ** 2)})


@RULES("sum.dim_IntList", "linalg_vector_norm", "norm.ScalarOpt_dim")
def _sum(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """Zeros add nothing to a sum; to a norm neither, unless that is one of small values."""
    order = a.get("ord", a.get("p"))
    if order is not None and not (isinstance(order, (int, float)) and order > 0):
        return protect_all(tracker, node, "takes a norm of uncommon order")
    return _reduced(tracker, node, a, padded=False)


@RULES("mean.dim", "amax", "amin", "var.dim", "var.correction", "std.dim", "std.correction")
def _statistic(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    return _reduced(tracker, node, a, padded=True)


def _reduced(tracker: Tracker, node: fx.Node, a: Arguments, *, padded: bool) -> Tracked:
    """padded: the number of positions counts, so the pruned model reduces over zeros in place of what it lacks."""
    layout = tracker.layout(a["self"])
    rank = len(tracker.shapes[a["self"]])
    reduced = {dim % rank for dim in (a["dim"] or range(rank))}
    for dim in sorted(reduced & layout.axes.keys()):
        if padded:
            pad_to_length(tracker, node, a["self"], dim, None)
    kept = [dim for dim in range(rank) if dim not in reduced]
    if a["keepdim"]:
        return layout.moved({dim: dim for dim in kept})
    return layout.moved({dim: new for new, dim in enumerate(kept)})


def pad_to_length(tracker: Tracker, node: fx.Node, source: fx.Node, dim: int, result_dim: int | None) -> Ids | None:
    """Has `node` run on zeros in place of removed positions along `dim`; their ids, None if that is not tracked.

    Only for calls to which the order along `dim` means nothing.
    """
    ids = tracker.ids(source, dim)
    if ids is not None:
        tracker.paddings.setdefault(node, []).append(Padding(len(tracker.shapes[source]), dim, ids, result_dim))
    return ids


@RULES("layer_norm", "native_layer_norm", "rms_norm")
def _norm(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """A norm that stayed a function; one that is a layer has its rule in `channel_layers`."""
    source = a["input"]
    layout, last = tracker.layout(source), len(tracker.shapes[source]) - 1
    count = len(a["normalized_shape"])
    if any(dim > last - count for dim in layout.axes):
        vectors = [a[name] for name in ("weight", "bias") if a.get(name) is not None]
        simple = count == 1 and operator_name(node) != "native_layer_norm"
        if not simple or not all(vector.op == "get_attr" and len(vector.users) == 1 for vector in vectors):
            return protect_all(tracker, node, "normalises over the channels")
        ids = pad_to_length(tracker, node, source, last, last)
        assert ids is not None
        for vector in vectors:
            name = str(vector.target)
            tracker.layouts[vector] = NOTHING
            tracker.axes.pop(name)
            tracker.reordered[name] = ids
    return [layout, NOTHING, NOTHING] if operator_name(node) == "native_layer_norm" else layout


@RULES("softmax.int", "_softmax", "log_softmax.int", "_log_softmax", "_safe_softmax", "cumsum")
def _along_a_dimension(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    dim = a["dim"] % len(tracker.shapes[node])
    if dim in layout.axes:
        tracker.protect(layout.axes[dim], f"{node.name}: mixes the channels")
    return layout.without(dim)


@RULES(
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "max_pool2d_with_indices",
    "max_pool3d_with_indices", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
    "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_nearest_exact2d",
)  # fmt: skip
def _spatial(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    source = a["self"] if "self" in a else a["input"]
    layout, results = tracker.layout(source), tracker.shapes[node]
    for dim in [dim for dim in layout.axes if dim > 1 or len(tracker.shapes[source]) < 3]:
        tracker.protect(layout.axes[dim], f"{node.name}: resamples along them")
        layout = layout.without(dim)
    return [layout for _ in results] if isinstance(results, list) else layout


@RULES("embedding_bag")
def _embedding_bag(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """Sums or means of rows of a stored table: its columns are channels."""
    weights = tracker.layout(a["weight"])
    table = tracker.parameter(a["weight"])
    for name in ("indices", "offsets", "per_sample_weights"):
        tracker.protect_value(a[name], f"{node.name}: reads it as ids")
    if 0 in weights.axes:
        tracker.protect(weights.axes[0], f"{node.name}: looks rows up")
    if table is not None and 1 in weights.axes:
        tracker.produce(table, weights.axes[1])
    return [weights.moved({1: 1}), *[NOTHING] * (len(tracker.shapes[node]) - 1)]


@RULES("sym_size", "sym_numel")
def _size(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    layout = tracker.layout(a["self"])
    dims = layout.axes.keys() if "dim" not in a else {a["dim"] % len(tracker.shapes[a["self"]])}
    for dim in dims & layout.axes.keys():
        tracker.protect(layout.axes[dim], f"{node.name}: reads the number of channels")
    return None

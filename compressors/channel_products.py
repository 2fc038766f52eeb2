"""How channels pass through products of tensors: whatever is summed over goes together on both sides.

Matrix products, attention and einsum are read as one thing: every dimension of the operands carries a letter; ids that
meet under one letter are one channel; letters that the result lacks are summed over, where zeros add nothing.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence

import numpy as np
from torch import fx

from compressors.aten_modules import Arguments
from compressors.channel_rule_table import RuleTable, protect_all
from compressors.channel_tracking import Constant, Ids, Layout, Tracked, Tracker

PRODUCTS = RuleTable()


def contract(tracker: Tracker, node: fx.Node, operands: Sequence[tuple[fx.Node, str]], result: str) -> Layout:
    """Layout of a product. operands: with a letter per dimension. Dimensions of length 1 are broadcast.

    A letter of two operands and the result is a batch dimension, along which heads of attention lie.
    """
    met: dict[str, list[tuple[fx.Node, int]]] = {}
    for source, letters in operands:
        for dim, letter in enumerate(letters):
            if tracker.shapes[source][dim] > 1:
                met.setdefault(letter, []).append((source, dim))
    joined: dict[str, Ids] = {}
    for letter, places in met.items():
        ids = tracker.meet(places, f"{node.name}: multiplied with a tensor whose channels are fixed")
        if ids is not None:
            joined[letter] = ids
            if len(places) > 1 and letter in result:
                tracker.marks.append(("heads", ids))
    for source, letters in operands:
        name = tracker.parameter(source)
        if name is not None:
            _produce(tracker, name, [tracker.axes[name].get(dim) for dim in range(len(letters))], letters, result)
    return Layout({dim: joined[letter] for dim, letter in enumerate(result) if letter in joined})


def _produce(tracker: Tracker, name: str, axes: Sequence[Ids | None], letters: str, result: str) -> None:
    """A stored matrix is a layer without a module: the dimension that reaches the result is its output."""
    outputs = [ids for ids, letter in zip(axes, letters, strict=True) if letter in result and ids is not None]
    inputs = [ids for ids, letter in zip(axes, letters, strict=True) if letter not in result and ids is not None]
    if len(outputs) == 1 and len(inputs) == 1:
        tracker.produce(name, outputs[0], inputs[0])


@PRODUCTS("matmul", "bmm", "mm")
def _matmul(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    left, right = a["self"], a["other" if "other" in a else "mat2"]
    ranks = [len(tracker.shapes[source]) for source in (left, right)]
    if min(ranks) < 2:
        return protect_all(tracker, node, "multiplies with a vector")
    batch = string.ascii_lowercase[: max(ranks) - 2]
    operands = [(left, batch[len(batch) - ranks[0] + 2 :] + "XY"), (right, batch[len(batch) - ranks[1] + 2 :] + "YZ")]
    return contract(tracker, node, operands, batch + "XZ")


@PRODUCTS("addmm", "baddbmm", "linear")
def _matrix_layer(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """A product plus a bias that is broadcast over it."""
    if "weight" in a:
        source, matrix, bias, letters = a["input"], a["weight"], a["bias"], "ZY"
    else:
        first = "mat1" if "mat1" in a else "batch1"
        source, matrix, bias, letters = a[first], a["mat2" if first == "mat1" else "batch2"], a["self"], "YZ"
    rank = len(tracker.shapes[node])
    batch = string.ascii_lowercase[: rank - 1]
    matrix_batch = batch[: len(tracker.shapes[matrix]) - 2]
    layout = contract(tracker, node, [(source, batch + "Y"), (matrix, matrix_batch + letters)], batch + "Z")
    if bias is None:
        return layout
    own = tracker.layout(bias)
    for dim, size in enumerate(tracker.shapes[bias]):
        target = dim + rank - len(tracker.shapes[bias])
        ours, theirs = layout.axes.get(target), tracker.ids(bias, dim)
        if ours is not None and theirs is not None:
            tracker.join(np.tile(ours, size // len(ours)), theirs)
        elif ours is not None and size > 1:
            tracker.protect(ours, f"{node.name}: added to a tensor whose channels are fixed")
        elif theirs is not None:
            tracker.protect(own.axes[dim], f"{node.name}: added to a tensor whose channels are fixed")
    return layout


@PRODUCTS("einsum")
def _einsum(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    equation = a["equation"].replace(" ", "")
    sources, arrow, result = equation.partition("->")
    operands = list(zip(a["tensors"], sources.split(","), strict=True))
    if not arrow:
        counts = {letter: sources.count(letter) for letter in sorted(set(sources) - {","})}
        result = "".join(letter for letter, count in counts.items() if count == 1)
    if "." in equation or any(len(set(letters)) < len(letters) for _, letters in operands):
        return protect_all(tracker, node, "einsum with an ellipsis or a diagonal")
    return contract(tracker, node, operands, result)


@PRODUCTS("outer")
def _outer(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    return contract(tracker, node, [(a["self"], "x"), (a["vec2"], "y")], "xy")


@PRODUCTS("scaled_dot_product_attention")
def _attention(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """softmax(q k^T / sqrt(d) + mask) v: a head whose query, key and value are zero adds nothing to the next layer.

    Lengths must stay: a key of zeros takes a share of the softmax. The scale is that of the original d.
    """
    query, key, value, mask = a["query"], a["key"], a["value"], a["attn_mask"]
    ranks = {len(tracker.shapes[source]) for source in (query, key, value)}
    if len(ranks) > 1 or min(ranks) < 2:
        return protect_all(tracker, node, "attention over tensors of different rank")
    for source in (query, key, value):
        lengths = tracker.layout(source).axes.get(len(tracker.shapes[source]) - 2)
        if lengths is not None:
            tracker.protect(lengths, f"{node.name}: attends over them")
    batch = string.ascii_lowercase[: ranks.pop() - 2]
    if a["enable_gqa"]:
        return _grouped_attention(tracker, node, a)
    operands = [(query, batch + "QE"), (key, batch + "KE"), (value, batch + "KV")]
    if mask is not None:
        rank = len(tracker.shapes[mask])
        operands.append((mask, (batch + "QK")[len(batch) + 2 - rank :]))
    layout = contract(tracker, node, operands, batch + "QV")
    _keep_scale(tracker, node, a)
    return layout


def _keep_scale(tracker: Tracker, node: fx.Node, a: Arguments) -> None:
    width = tracker.shapes[a["query"]][-1]
    ids = tracker.layout(a["query"]).axes.get(len(tracker.shapes[node]) - 1)
    if ids is not None and a["scale"] is None:
        tracker.constants[node] = Constant("scale", 1 / math.sqrt(width), ids)


def _grouped_attention(tracker: Tracker, node: fx.Node, a: Arguments) -> Tracked:
    """Several query heads share a key head (Ainslie et al. 2023): all of them go together."""
    query, key, value = (tracker.layout(a[name]) for name in ("query", "key", "value"))
    rank = len(tracker.shapes[node])
    heads = [layout.axes.get(rank - 3) for layout in (query, key, value)]
    widths = [query.axes.get(rank - 1), key.axes.get(rank - 1)]
    if a["attn_mask"] is not None or any(ids is None for ids in (*heads, *widths)):
        return protect_all(tracker, node, "shares keys between heads that are not all known")
    groups = tracker.shapes[a["query"]][-3] // tracker.shapes[a["key"]][-3]
    first, *others = (ids for ids in heads if ids is not None)
    for ids in others:
        tracker.join(first, np.repeat(ids, groups))
    tracker.marks.append(("heads", first))
    tracker.join(*(ids for ids in widths if ids is not None))
    _keep_scale(tracker, node, a)
    axes = {rank - 3: first}
    width = value.axes.get(rank - 1)
    if width is not None:
        axes[rank - 1] = width
    return Layout(axes)

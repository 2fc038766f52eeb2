"""Rewrites the calls of a pruned model's graph: sizes written into them, reorderings, norms over padded channels."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import fx

from compressors.aten_modules import bound_arguments
from compressors.channel_tracking import Literal, Padding
from compressors.channels import ChannelGraph, Kept

aten = torch.ops.aten


def rewrite_calls(new_graph: fx.Graph, graph: ChannelGraph, kept: Kept) -> dict[str, torch.Tensor]:
    """Changes `new_graph`, a copy of the analysed model's, in place; returns buffers that it now reads, by name."""
    orders: dict[str, torch.Tensor] = {}
    nodes = {node.name: node for node in new_graph.nodes}
    taken = {str(node.target) for node in new_graph.nodes if node.op in {"get_attr", "call_module"}}
    for name, node in nodes.items():
        gather = graph.gathers.get(name)
        if gather is not None and not kept[gather.ids].all():
            positions = _positions(kept[gather.ids], gather.positions)
            buffer = _free(f"{name}_order", taken)
            orders[buffer] = torch.from_numpy(positions)
            _gather(new_graph, node, nodes[gather.source], gather.dim, buffer)
            continue
        if name in graph.literals:
            _write_literals(new_graph, node, graph.literals[name], kept)
        if name in graph.pieces:
            pieces = graph.pieces[name]
            sizes = [int(kept[part].sum()) for part in pieces.parts]
            if sizes != [len(part) for part in pieces.parts]:
                node.target = aten.split_with_sizes.default
                node.args, node.kwargs = (node.args[0], sizes, pieces.dim), {}
        constant = graph.constants.get(name)
        if constant is not None and not kept[constant.ids].all():
            node.update_kwarg(constant.name, constant.value)
        for padding in graph.paddings.get(name, ()):
            if not kept[padding.ids].all():
                _pad(new_graph, node, padding, kept)
    for node in reversed(new_graph.nodes):
        if not node.users and node.op in {"call_function", "get_attr"}:
            new_graph.erase_node(node)
    return orders


def _positions(kept_source: Kept, positions: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
    """Where the kept ones of `positions` lie among what is left of the source."""
    rank = np.cumsum(kept_source) - 1
    return rank[positions[kept_source[positions]]].astype(np.int64)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _gather(new_graph: fx.Graph, node: fx.Node, source: fx.Node, dim: int, buffer: str) -> None:
    with new_graph.inserting_before(node):
        order = new_graph.get_attr(buffer)
    node.target = aten.index_select.default
    node.args, node.kwargs = (source, dim, order), {}


def _write_literals(new_graph: fx.Graph, node: fx.Node, literals: tuple[Literal, ...], kept: Kept) -> None:
    arguments = bound_arguments(node)
    changed = set()
    for literal in literals:
        keep = kept[literal.ids]
        count = int(keep.sum())
        if literal.index is None:
            # Also where nothing before it goes: it may have been written from the end.
            changed.add(literal.name)
            arguments[literal.name] = count
            continue
        if keep.all():
            continue
        changed.add(literal.name)
        values = list(arguments[literal.name])
        known = values[literal.index]
        if isinstance(known, fx.Node):
            with new_graph.inserting_before(node):
                parts = new_graph.call_function(operator.floordiv, (known, len(keep)))
                values[literal.index] = new_graph.call_function(operator.mul, (parts, count))
        else:
            values[literal.index] = literal.times * count
        arguments[literal.name] = values
    assert isinstance(node.target, torch._ops.OpOverload)
    schema = node.target._schema.arguments
    for position, argument in enumerate(schema):
        if argument.name not in changed:
            continue
        if argument.kwarg_only:
            node.update_kwarg(argument.name, arguments[argument.name])
            continue
        # A slice without an end is written with all arguments before the changed one.
        missing = schema[len(node.args) : position + 1]
        node.args = (*node.args, *(arguments[one.name] for one in missing))
        node.kwargs = {key: value for key, value in node.kwargs.items() if key not in {one.name for one in missing}}
        node.update_arg(position, arguments[argument.name])


def _pad(new_graph: fx.Graph, node: fx.Node, padding: Padding, kept: Kept) -> None:
    """Zeros behind the kept channels of what `node` reads, which go from its result again.

    A model that was pruned before has both already: then they only grow.
    """
    keep = kept[padding.ids]
    source = node.args[0]
    assert isinstance(source, fx.Node)
    known = _trailing_zeros(source, padding)
    pads = [0, 0] * (padding.rank - 1 - padding.dim) + [0, known + int((~keep).sum())]
    if known:
        source = source.all_input_nodes[0]
    with new_graph.inserting_before(node):
        padded = new_graph.call_function(aten.constant_pad_nd.default, (source, pads, 0.0))
    node.update_arg(0, padded)
    if padding.result_dim is None or all(_is_head(user, padding.result_dim) for user in node.users):
        return
    with new_graph.inserting_after(node):
        cut = new_graph.call_function(aten.slice.Tensor, (node, padding.result_dim, 0, int(keep.sum())))
    node.replace_all_uses_with(cut, delete_user_cb=lambda user: user is not cut)


def _trailing_zeros(source: fx.Node, padding: Padding) -> int:
    """Zeros that `source` has put behind the channels, and nowhere else; 0 for any other call."""
    if source.target is not aten.constant_pad_nd.default:
        return 0
    pads = bound_arguments(source)["pad"]
    wanted = [0, 0] * (padding.rank - 1 - padding.dim) + [0]
    simple = bound_arguments(source)["value"] == 0 and list(pads[:-1]) == wanted and isinstance(pads[-1], int)
    return pads[-1] if simple else 0


def _is_head(user: fx.Node, dim: int) -> bool:
    """Whether a call takes the first so many along `dim`; `_write_literals` brings their number up to date."""
    if user.target is not aten.slice.Tensor:
        return False
    a = bound_arguments(user)
    return a["dim"] == dim and a["start"] == 0 and isinstance(a["end"], int) and a["end"] >= 0 and a["step"] == 1

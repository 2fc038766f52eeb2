"""Residual blocks of a model: sums x + f(x) found in its graph, what they do, and the model without them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from compressors.module_tree import get_tensor, has_attribute
from compressors.shape_recording import record_shapes

_ADDITIONS = (torch.ops.aten.add.Tensor, torch.add, operator.add)


@dataclass(frozen=True)
class Block:
    """x + f(x). Nodes are named, so a block holds for deep copies of the model too.

    name: first layer that is called for f only, with '#2', … where that is taken. addition: node of the sum. side:
    which of its arguments is x. nodes: all that is computed for f only. layers: layers with weights called there, in
    order. parameters: trained values that go with the block.
    """

    name: str
    addition: str
    side: int
    nodes: frozenset[str]
    layers: tuple[str, ...]
    parameters: int


def find_blocks(model: fx.GraphModule, example_inputs: tuple[Tensor, ...]) -> tuple[Block, ...]:
    """All blocks whose branch has weights, in the order of their sums; nested ones too. Runs the model once for its
    shapes. Cost: nodes squared bits."""
    shapes = record_shapes(model, example_inputs)
    ancestors = _ancestors(model.graph)
    found: list[Block] = []
    names: set[str] = set()
    for node in model.graph.nodes:
        if node.op != "call_function" or node.target not in _ADDITIONS:
            continue
        for shortcut, branch in _sides(node):
            same = isinstance(shapes[shortcut], tuple) and shapes[shortcut] == shapes[branch] == shapes[node]
            if same and shortcut is not branch and _passes_on(shortcut, branch, ancestors):
                block = _block(model, node, shortcut, branch, names)  # a branch that others read too is none
                if block is not None:
                    names.add(block.name)
                    found.append(block)
                break
    return tuple(found)


def _sides(node: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
    """(shortcut, branch) both ways round; a factor on the second summand (alpha) must not fall on the shortcut."""
    first, second = node.args[:2] if len(node.args) > 1 else (None, None)
    if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
        return []
    return [(first, second)] if node.kwargs.get("alpha", 1) != 1 else [(first, second), (second, first)]


def _ancestors(graph: fx.Graph) -> dict[fx.Node, int]:
    """Per node the set of all nodes that it depends on, and itself, as bits by position in the graph."""
    ancestors: dict[fx.Node, int] = {}
    for position, node in enumerate(graph.nodes):
        bits = 1 << position
        for source in node.all_input_nodes:
            bits |= ancestors[source]
        ancestors[node] = bits
    return ancestors


def _passes_on(shortcut: fx.Node, branch: fx.Node, ancestors: dict[fx.Node, int]) -> bool:
    """Whether `branch` is computed from `shortcut`, or from something that `shortcut` is a sum of (parallel branches:
    x + f(x) + g(x))."""
    own = ancestors[shortcut] & ~_union(ancestors, shortcut.all_input_nodes)
    if ancestors[branch] & own:
        return True
    if shortcut.op != "call_function" or shortcut.target not in _ADDITIONS:
        return False
    return any(_passes_on(source, branch, ancestors) for source in shortcut.all_input_nodes)


def _union(ancestors: dict[fx.Node, int], nodes: Iterable[fx.Node]) -> int:
    bits = 0
    for node in nodes:
        bits |= ancestors[node]
    return bits


def _block(
    model: fx.GraphModule, addition: fx.Node, shortcut: fx.Node, branch: fx.Node, taken: set[str]
) -> Block | None:
    """None if nothing with weights goes with the branch."""
    going = _needed_only_by(addition, branch)
    calls = [str(n.target) for n in going if n.op == "call_module" and _has_parameters(model, str(n.target))]
    raw = [str(n.target) for n in going if n.op == "get_attr" and _is_parameter(model, str(n.target))]
    if not calls and not raw:
        return None
    staying = {str(n.target) for n in model.graph.nodes if n.op in ("call_module", "get_attr") and n not in going}
    gone = {
        id(p): p.numel()
        for name in dict.fromkeys(calls)
        if name not in staying
        for p in model.get_submodule(name).parameters()
    }
    gone |= {id(p): p.numel() for name in raw if name not in staying for p in [model.get_parameter(name)]}
    kept = {id(p) for name in staying for p in _parameters(model, name)}
    base = (calls or raw)[0]
    return Block(
        name=next(name for name in _numbered(base) if name not in taken),
        addition=addition.name,
        side=0 if addition.args[0] is shortcut else 1,
        nodes=frozenset(node.name for node in going),
        layers=tuple(dict.fromkeys(calls)),
        parameters=sum(count for key, count in gone.items() if key not in kept),
    )


def _numbered(base: str) -> Iterable[str]:
    yield base
    number = 2
    while True:
        yield f"{base}#{number}"
        number += 1


def _needed_only_by(addition: fx.Node, branch: fx.Node) -> list[fx.Node]:
    """What nobody reads any more once `addition` does without `branch`, in order."""
    if set(branch.users) != {addition}:
        return []
    going = {branch}
    for node in reversed(list(branch.graph.nodes)):
        if node.op != "placeholder" and node.users and all(user in going for user in node.users):
            going.add(node)
    return [node for node in branch.graph.nodes if node in going]


def _has_parameters(model: fx.GraphModule, name: str) -> bool:
    return any(True for _ in model.get_submodule(name).parameters())


def _is_parameter(model: fx.GraphModule, name: str) -> bool:
    return isinstance(get_tensor(model, name), nn.Parameter)


def _parameters(model: fx.GraphModule, name: str) -> list[nn.Parameter]:
    tensor = get_tensor(model, name)
    if tensor is not None:
        return [tensor] if isinstance(tensor, nn.Parameter) else []
    return list(model.get_submodule(name).parameters())


def without_blocks(model: fx.GraphModule, blocks: Sequence[Block]) -> fx.GraphModule:
    """A copy that goes on with x where it computed x + f(x), without the layers that only f used. A block that lies
    inside another one of them goes with it."""
    smaller: fx.GraphModule = copy.deepcopy(model)
    inner = {name for block in blocks for name in block.nodes}
    sides = {block.addition: block.side for block in blocks if block.addition not in inner}
    for node in list(smaller.graph.nodes):  # in order: the shortcut of a sum may be an earlier sum that has gone
        if node.name in sides:
            node.replace_all_uses_with(node.args[sides[node.name]])
            smaller.graph.erase_node(node)
    # Not eliminate_dead_code, which keeps whatever could be random, attention for one.
    for node in reversed(list(smaller.graph.nodes)):
        if node.op not in ("placeholder", "output") and not node.users:
            smaller.graph.erase_node(node)
    smaller.delete_all_unused_submodules()
    read = {str(node.target) for node in smaller.graph.find_nodes(op="get_attr")}
    for name in {str(node.target) for node in model.graph.find_nodes(op="get_attr")} - read:
        if has_attribute(smaller, name):
            owner, _, leaf = name.rpartition(".")
            delattr(smaller.get_submodule(owner), leaf)
    smaller.recompile()
    return smaller


@torch.no_grad()
def influences(
    model: fx.GraphModule, blocks: Sequence[Block], batches: Iterable[tuple[Tensor, ...]]
) -> dict[str, float]:
    """1 - cos(x, x + f(x)) per block, 0..2: mean over samples (the first axis), each taken as one vector.

    Men et al. 2024, arXiv:2403.03853, equation 1, where a sample is a token. Runs the model once over all batches.
    """
    observer = _Observer(copy.deepcopy(model).eval(), blocks)
    for inputs in batches:
        observer.run(*inputs)
    return {name: 1 - total / max(observer.samples[name], 1) for name, total in observer.similarities.items()}


class _Observer(fx.Interpreter):
    """Sums up the similarity of every block's input and output, over all runs."""

    def __init__(self, model: fx.GraphModule, blocks: Sequence[Block]) -> None:
        super().__init__(model)
        self._blocks = {block.addition: block for block in blocks}
        self.similarities = {block.name: 0.0 for block in blocks}
        self.samples = {block.name: 0 for block in blocks}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        block = self._blocks.get(n.name)
        if block is not None:
            x = self.env[n.args[block.side]]  # type: ignore[index]
            similar = functional.cosine_similarity(x.flatten(1).double(), result.flatten(1).double(), dim=1)
            self.similarities[block.name] += float(similar.sum())
            self.samples[block.name] += len(similar)
        return result

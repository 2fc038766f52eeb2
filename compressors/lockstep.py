"""Runs models of one and the same graph side by side, node by node over all batches.

What rounds or corrects a layer wants to see the layer's inputs in the float model and in the model whose earlier layers
are rounded already. Going node by node costs one forward pass per model, where asking for each layer's inputs anew
would cost one per layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

# (node of the first model, per model the layer's first argument for every batch).
Visit = Callable[[fx.Node, Sequence[Sequence[Tensor]]], None]
Rewrite = Callable[[Tensor], Tensor]


class _Stepper(fx.Interpreter):
    """One model with one environment per batch."""

    def __init__(self, model: fx.GraphModule, batches: Sequence[tuple[Tensor, ...]]) -> None:
        super().__init__(model)
        self.nodes = list(model.graph.nodes)
        self._environments: list[dict[fx.Node, Any]] = [{} for _ in batches]
        self._arguments = [iter(batch) for batch in batches]

    def first_arguments(self, node: fx.Node) -> list[Any]:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return [environment[source] for environment in self._environments]

    def rewrite_first_argument(self, node: fx.Node, rewrite: Rewrite) -> None:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        for environment in self._environments:
            environment[source] = rewrite(environment[source])

    def step(self, node: fx.Node) -> None:
        for environment, arguments in zip(self._environments, self._arguments, strict=True):
            self.env, self.args_iter = environment, arguments
            environment[node] = self.run_node(node)
            for unread in self.user_to_last_uses.get(node, []):
                del environment[unread]


def walk(
    models: Sequence[fx.GraphModule],
    batches: Iterable[tuple[Tensor, ...]],
    visit: Visit,
    rewrites: Mapping[str, Rewrite] | None = None,
) -> None:
    """Calls `visit` before every layer runs; what it changes in a layer counts for everything behind it.

    models: in eval mode, copies of one model that differ in values only. rewrites: by layer, what its input becomes in
    the last model, for all readers of that value (rounding of activations). Memory: all batches of the values that are
    still to be read, for each model.
    """
    rows = list(batches)
    rewrite_of = rewrites or {}
    steppers = [_Stepper(model, rows) for model in models]
    with torch.no_grad():
        for nodes in zip(*(stepper.nodes for stepper in steppers), strict=True):
            if nodes[0].op == "output":
                break
            if nodes[0].op == "call_module" and nodes[0].args and isinstance(nodes[0].args[0], fx.Node):
                if str(nodes[0].target) in rewrite_of:
                    steppers[-1].rewrite_first_argument(nodes[-1], rewrite_of[str(nodes[0].target)])
                visit(nodes[0], [s.first_arguments(node) for s, node in zip(steppers, nodes, strict=True)])
            for stepper, node in zip(steppers, nodes, strict=True):
                stepper.step(node)

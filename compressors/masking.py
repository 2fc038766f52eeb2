"""The reference for pruning: the original model with the removed channels set to zero wherever they occur."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from compressors.channels import ChannelGraph, Kept, Units


class _Masked(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, graph: ChannelGraph, kept: Kept) -> None:
        super().__init__(module)
        self._channels = graph
        self._kept = kept

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        layouts = self._channels.layouts.get(n.name)
        if layouts is None:
            return result
        leaves, structure = pytree.tree_flatten(result)
        masked = [self._mask(tensor, layout) for tensor, layout in zip(leaves, layouts, strict=True)]
        return pytree.tree_unflatten(masked, structure)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Recurrent layers pass their units on inside: there a unit is silenced by its weights."""
        layer = self.fetch_attr(target)
        if not isinstance(layer, nn.RNNBase):
            return super().call_module(target, args, kwargs)
        named = {name: f"{target}.{name}" for name, _ in layer.named_parameters()}
        weights = {name: self._mask(layer.get_parameter(name), self._axes(full)) for name, full in named.items()}
        return torch.func.functional_call(layer, weights, args, kwargs)

    def _axes(self, name: str) -> Mapping[int, Units]:
        return self._channels.axes.get(name, {})

    def _mask(self, tensor: torch.Tensor, axes: Mapping[int, Units]) -> torch.Tensor:
        for dim, units in axes.items():
            removed = np.flatnonzero(~np.tile(self._kept[units], tensor.shape[dim] // len(units)))
            if len(removed):
                tensor = tensor.index_fill(dim, torch.from_numpy(removed), 0)
        return tensor


def masked_forward(
    module: fx.GraphModule,
    graph: ChannelGraph,
    removed: Mapping[str, Iterable[int]],
    *inputs: torch.Tensor,
) -> Any:
    """Output of `module` with the removed units' positions zeroed on every tensor that carries them.

    The batch may be of any size. removed: per group, indices of units. A model pruned of the same units must give the
    same output in evaluation mode.
    """
    return _Masked(module, graph, graph.kept(removed)).run(*inputs)

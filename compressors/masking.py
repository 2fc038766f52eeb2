"""The reference for pruning: the original model with the removed channels set to zero wherever they occur."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx

from compressors.channels import ChannelGraph, Kept


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
        if isinstance(result, torch.Tensor):
            return self._mask(result, layouts[0])
        return [self._mask(tensor, layout) for tensor, layout in zip(result, layouts, strict=True)]

    def _mask(self, tensor: torch.Tensor, layout: Any) -> torch.Tensor:
        if layout is None:
            return tensor
        dim, units = layout
        removed = torch.from_numpy(np.flatnonzero(~self._kept[units]))
        return tensor.index_fill(dim, removed, 0) if len(removed) else tensor


def masked_forward(
    module: fx.GraphModule,
    graph: ChannelGraph,
    removed: Mapping[str, Iterable[int]],
    *inputs: torch.Tensor,
) -> Any:
    """Output of `module` with the removed units' positions zeroed on every tensor that carries them.

    removed: per group, indices of units. A model pruned of the same units must give the same output in evaluation mode.
    """
    return _Masked(module, graph, graph.kept(removed)).run(*inputs)

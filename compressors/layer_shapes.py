"""Reads the torch-free cost model of `layer_costs` off a model and its channel graph."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from compressors.channels import ChannelGraph, Units
from compressors.layer_costs import LayerCosts, LayerShape
from compressors.module_tree import get_tensor
from compressors.shape_recording import record_shapes

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def read_costs(module: fx.GraphModule, graph: ChannelGraph, example_inputs: tuple[torch.Tensor, ...]) -> LayerCosts:
    """The cost model of `module`; runs it once on `example_inputs`."""
    return LayerCosts(layer_shapes(module, graph, example_inputs), graph.sizes)


def layer_shapes(
    module: fx.GraphModule, graph: ChannelGraph, example_inputs: tuple[torch.Tensor, ...]
) -> tuple[LayerShape, ...]:
    """Every layer and raw parameter that holds trained values.

    Channels of groups that `graph` leaves out count as fixed.
    """
    positions = _positions(module, example_inputs)
    reader = _Reader(module, graph)
    shapes = [reader.layer(name, count) for name, count in positions.items()]
    raw = [reader.parameter(str(node.target)) for node in module.graph.find_nodes(op="get_attr")]
    return tuple(shape for shape in [*shapes, *raw] if shape is not None)


def _positions(module: fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> dict[str, int]:
    """Places per sample at which each layer's kernel is applied; 0 for layers that multiply nothing."""
    shapes = record_shapes(module, example_inputs)
    positions: dict[str, int] = {}
    for node in module.graph.find_nodes(op="call_module"):
        name = str(node.target)
        layer = module.get_submodule(name)
        count = 0
        if isinstance(layer, nn.modules.conv._ConvNd):
            count = math.prod(shapes[node.args[0] if isinstance(layer, _TRANSPOSED) else node][2:])
        elif isinstance(layer, nn.Linear):
            count = math.prod(shapes[node][1:-1])
        positions[name] = positions.get(name, 0) + count
    return positions


class _Reader:
    def __init__(self, module: fx.GraphModule, graph: ChannelGraph) -> None:
        self._module = module
        self._graph = graph
        self._counted: set[int] = set()
        self._group_of = np.full(graph.units, -1, dtype=np.int64)
        self._names = list(graph.sizes)
        for index, name in enumerate(self._names):
            self._group_of[graph.members[name]] = index

    def layer(self, name: str, positions: int) -> LayerShape | None:
        layer: Any = self._module.get_submodule(name)
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, nn.Parameter):
            return None
        channels = self._graph.layers.get(name)
        outputs = None if channels is None else channels.outputs
        kernel, in_fixed, groups = 1, 1, 1
        depthwise = True
        if isinstance(layer, nn.modules.conv._ConvNd):
            depthwise = channels is not None and channels.depthwise
            kernel, in_fixed, groups = math.prod(layer.kernel_size), layer.in_channels, 1 if depthwise else layer.groups
            out_count = layer.out_channels
        elif isinstance(layer, nn.Linear):
            depthwise, in_fixed, out_count = False, layer.in_features, layer.out_features
        elif isinstance(layer, nn.Embedding):
            depthwise, in_fixed, out_count = False, layer.num_embeddings, layer.embedding_dim
        else:
            out_count = weight.numel()
        out_fixed, out_groups = self._sides(outputs, out_count)
        in_fixed, in_groups = self._sides(None if channels is None else channels.inputs, in_fixed)
        return LayerShape(
            name=name,
            kind=type(layer).__name__,
            kernel=kernel,
            positions=positions,
            out_fixed=out_fixed,
            out_groups=out_groups,
            in_fixed=in_fixed,
            in_groups=in_groups,
            depthwise=depthwise,
            groups=groups,
            bias=isinstance(getattr(layer, "bias", None), nn.Parameter),
            shares_weight=not self._first_count([weight]),
        )

    def parameter(self, name: str) -> LayerShape | None:
        """A parameter that functions read; at most one of its axes is sliced."""
        tensor = get_tensor(self._module, name)
        if not isinstance(tensor, nn.Parameter) or not self._first_count([tensor]):
            return None
        axis, units = next(iter(self._graph.axes.get(name, {}).items()), (0, None))
        length = tensor.shape[axis] if tensor.dim() else 1
        out_fixed, out_groups = self._sides(units, length)
        return LayerShape(
            name=name,
            kind="Parameter",
            kernel=tensor.numel() // max(length, 1),
            positions=0,
            out_fixed=out_fixed,
            out_groups=out_groups,
            depthwise=True,
        )

    def _first_count(self, tensors: Iterable[torch.Tensor]) -> bool:
        fresh = [tensor for tensor in tensors if id(tensor) not in self._counted]
        self._counted.update(id(tensor) for tensor in fresh)
        return bool(fresh)

    def _sides(self, units: Units | None, count: int) -> tuple[int, dict[str, int]]:
        """Fixed channels, and channels per unit of each group, of a side with `count` channels."""
        if units is None:
            return count, {}
        groups = self._group_of[units]
        totals = np.bincount(groups[groups >= 0], minlength=len(self._names))
        sizes = self._graph.sizes
        per_unit = {name: int(total) // sizes[name] for name, total in zip(self._names, totals, strict=True) if total}
        return int((groups < 0).sum()), per_unit

"""Reads the torch-free cost model of `layer_costs` off a model and its channel graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from compressors.channels import ChannelGraph, Units
from compressors.layer_costs import GRID, LayerCosts, LayerShape
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
    reader = _Reader(module, graph)
    positions = reader.positions(example_inputs)
    shapes = [shape for name, count in positions.items() for shape in reader.layer(name, count)]
    raw = [reader.parameter(str(node.target)) for node in module.graph.find_nodes(op="get_attr")]
    return (*shapes, *(shape for shape in raw if shape is not None))


Terms = dict[tuple[str, ...], int]


def _product(left: Terms, right: Terms) -> Terms:
    """Product of two sums: counts per tuple of units of groups; () is what no group changes."""
    result: Terms = {}
    for a, m in left.items():
        for b, n in right.items():
            key = tuple(sorted((*a, *b)))
            result[key] = result.get(key, 0) + m * n
    return result


def _sum(left: Terms, right: Terms) -> Terms:
    return {key: left.get(key, 0) + right.get(key, 0) for key in {**left, **right}}


def _split(terms: Terms) -> tuple[int, dict[str, int]]:
    """Fixed count, and counts per group or grid of groups, as `LayerShape` keeps them."""
    return terms.get((), 0), {GRID.join(key): count for key, count in terms.items() if key and count}


class _Reader:
    def __init__(self, module: fx.GraphModule, graph: ChannelGraph) -> None:
        self._module = module
        self._graph = graph
        self._counted: set[int] = set()
        self._names = list(graph.sizes)
        owner = np.full(graph.units, -1, dtype=np.int64)
        for index, name in enumerate(self._names):
            owner[graph.members[name]] = index
        # Per number, groups that it depends on, ascending; -1 in front for none.
        own = np.broadcast_to(np.arange(graph.units)[:, None], (graph.units, graph.compounds.shape[1]))
        self._groups_of = np.sort(owner[np.concatenate([own, graph.compounds])], axis=1)

    def positions(self, example_inputs: tuple[torch.Tensor, ...]) -> dict[str, Terms]:
        """Places per sample at which each layer's kernel is applied; 0 for layers that multiply nothing."""
        shapes, batch = record_shapes(self._module, example_inputs), len(example_inputs[0])
        positions: dict[str, Terms] = {}
        for node in self._module.graph.find_nodes(op="call_module"):
            name = str(node.target)
            layer = self._module.get_submodule(name)
            count: Terms = {(): 0}
            if isinstance(layer, nn.modules.conv._ConvNd):
                shape = shapes[node.args[0] if isinstance(layer, _TRANSPOSED) else node]
                count = {(): shape[0] * math.prod(shape[2:]) // batch}
            elif isinstance(layer, nn.Linear):
                count = {(): 1}
                for dim, size in enumerate(shapes[node][:-1]):
                    count = _product(count, self._length(node, dim, size))
                count = {key: total // batch for key, total in count.items()}
            elif isinstance(layer, nn.RNNBase):
                shape = shapes[node.args[0]]
                count = {(): shape[1 if layer.batch_first and len(shape) == 3 else 0]}
            positions[name] = _sum(positions.get(name, {}), count)
        return positions

    def _length(self, node: fx.Node, dim: int, size: int) -> Terms:
        tracked = self._graph.layouts.get(node.name, ({},))[0].get(dim)
        if tracked is None:
            return {(): size}
        return {key: count * (size // len(tracked)) for key, count in self._terms(tracked).items()}

    def layer(self, name: str, positions: Terms) -> Iterator[LayerShape]:
        layer: Any = self._module.get_submodule(name)
        if isinstance(layer, nn.RNNBase):
            yield from self._recurrent(name, layer, positions)
            return
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, nn.Parameter):
            return
        channels = self._graph.layers.get(name)
        kernel, depthwise, in_count = 1, True, 1
        inputs = None
        if isinstance(layer, nn.modules.conv._ConvNd):
            kernel, in_count, out_count = math.prod(layer.kernel_size), layer.in_channels, layer.out_channels
            in_count //= layer.groups
            depthwise = channels is not None and channels.depthwise
            inputs = None if channels is None else channels.reads
        elif isinstance(layer, nn.Linear):
            depthwise, in_count, out_count = False, layer.in_features, layer.out_features
            inputs = None if channels is None else channels.inputs
        elif isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
            depthwise, in_count, out_count = False, layer.num_embeddings, layer.embedding_dim
        else:
            out_count = weight.numel()
        out_fixed, out_groups = self._sides(None if channels is None else channels.outputs, out_count)
        in_fixed, in_groups = self._sides(inputs, in_count)
        fixed_positions, position_groups = _split(positions)
        yield LayerShape(
            name=name,
            kind=type(layer).__name__,
            kernel=kernel,
            positions=fixed_positions,
            position_groups=position_groups,
            out_fixed=out_fixed,
            out_groups=out_groups,
            in_fixed=in_fixed,
            in_groups=in_groups,
            depthwise=depthwise,
            bias=isinstance(getattr(layer, "bias", None), nn.Parameter),
            shares_weight=not self._first_count([weight]),
        )

    def _recurrent(self, name: str, layer: nn.RNNBase, steps: Terms) -> Iterator[LayerShape]:
        """One shape per matrix, each applied once per step."""
        for key, tensor in layer.named_parameters():
            fresh = self._first_count([tensor])
            axes = self._graph.axes.get(f"{name}.{key}", {})
            out_fixed, out_groups = self._sides(axes.get(0), tensor.shape[0])
            in_fixed, in_groups = self._sides(axes.get(1), tensor.shape[1]) if tensor.dim() > 1 else (1, {})
            yield LayerShape(
                name=f"{name}.{key}",
                kind=type(layer).__name__,
                kernel=1,
                positions=steps[()] if tensor.dim() > 1 else 0,
                out_fixed=out_fixed,
                out_groups=out_groups,
                in_fixed=in_fixed,
                in_groups=in_groups,
                shares_weight=not fresh,
            )

    def parameter(self, name: str) -> LayerShape | None:
        """A parameter that functions read; at most two of its axes are sliced."""
        tensor = get_tensor(self._module, name)
        if not isinstance(tensor, nn.Parameter) or not self._first_count([tensor]):
            return None
        sides = {axis: self._sides(units, len(units)) for axis, units in self._graph.axes.get(name, {}).items()}
        sliced = [axis for axis, (_, groups) in sides.items() if groups]
        out_fixed, out_groups = sides[sliced[0]] if sliced else (1, {})
        in_fixed, in_groups = sides[sliced[1]] if len(sliced) > 1 else (1, {})
        return LayerShape(
            name=name,
            kind="Parameter",
            kernel=tensor.numel() // max(math.prod(tensor.shape[axis] for axis in sliced), 1),
            positions=0,
            out_fixed=out_fixed,
            out_groups=out_groups,
            in_fixed=in_fixed,
            in_groups=in_groups,
        )

    def _first_count(self, tensors: Iterable[torch.Tensor]) -> bool:
        fresh = [tensor for tensor in tensors if id(tensor) not in self._counted]
        self._counted.update(id(tensor) for tensor in fresh)
        return bool(fresh)

    def _sides(self, numbers: Units | None, count: int) -> tuple[int, dict[str, int]]:
        """Fixed channels, and channels per unit (or tuple of units) kept of each group, of a side of `count`."""
        return (count, {}) if numbers is None else _split(self._terms(numbers))

    def _terms(self, numbers: Units) -> Terms:
        totals: Terms = {}
        kinds, counts = np.unique(self._groups_of[numbers], axis=0, return_counts=True)
        for kind, total in zip(kinds.tolist(), counts.tolist(), strict=True):
            key = tuple(self._names[group] for group in dict.fromkeys(kind) if group >= 0)
            totals[key] = totals.get(key, 0) + total
        sizes = self._graph.sizes
        return {key: total // math.prod(sizes[name] for name in key) for key, total in totals.items()}

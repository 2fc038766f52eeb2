"""Scores of units that need data: what the loss, or the next layers, would lose without them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from compressors.channel_tracking import Ids
from compressors.channels import ChannelGraph
from compressors.importance import Scores, coupled, per_unit, producing_axes, reading_axes, unit_scores
from compressors.module_tree import get_tensor

Inputs = tuple[Tensor, ...]
Axis = tuple[str, int]


def taylor_scores(
    module: fx.GraphModule,
    graph: ChannelGraph,
    batches: Iterable[tuple[Inputs, Tensor]],
    loss: Callable[[Any, Tensor], Tensor],
) -> dict[str, Scores]:
    """Per group, (lanes * size,): mean over batches of |sum of w * dL/dw| over the weights that read a unit.

    Molchanov et al. 2019, arXiv:1906.10771, eq. 8, with the absolute value of each batch's sum. Summed over all
    weights that read a unit it is the first-order change of the loss when the unit becomes zero for all its readers.
    Units that only a product of tensors reads (places of query and key) count by the weights and biases that make
    them. batches: (inputs, target). loss: of the model's outputs and the target, a scalar. Runs in evaluation mode.
    """
    model = copy.deepcopy(module).eval().requires_grad_(True)
    axes = {group.name: reading_axes(graph, group.name) or _with_biases(graph, group.name) for group in graph.groups}
    names = sorted({name for found in axes.values() for name, _ in found})
    tensors = [tensor for name in names if (tensor := get_tensor(model, name)) is not None]
    places = {group: graph.places(group) for group in axes}
    totals = {group.name: np.zeros(group.lanes * group.size) for group in graph.groups}
    count = 0
    for inputs, target in batches:
        gradients = torch.autograd.grad(loss(model(*inputs), target), tensors, allow_unused=True)
        products = {
            name: (tensor * gradient).detach()
            for name, tensor, gradient in zip(names, tensors, gradients, strict=True)
            if gradient is not None
        }
        found_axes = {axis for found in axes.values() for axis in found if axis[0] in products}
        sums = {(name, axis): _sums(products[name], axis) for name, axis in found_axes}
        for group, total in totals.items():
            total += np.abs(_change(graph, places[group], len(total), axes[group], sums))
        count += 1
    return {group: total / max(count, 1) for group, total in totals.items()}


def _change(graph: ChannelGraph, places: Ids, size: int, axes: Iterable[Axis], sums: Mapping[Axis, Scores]) -> Scores:
    """Sum of w * dL/dw per unit over all weights in `axes`."""
    total = np.zeros(size)
    for name, axis in axes:
        own = per_unit(places, size, graph.axes[name][axis], sums[name, axis]) if (name, axis) in sums else None
        total += 0.0 if own is None else own
    return total


def _with_biases(graph: ChannelGraph, group: str) -> list[Axis]:
    made = producing_axes(graph, group)
    biases = [name.replace("weight", "bias") for name, _ in made if "weight" in name]
    return [*made, *((name, 0) for name in biases if name in graph.axes)]


def _sums(product: Tensor, axis: int) -> Scores:
    rows = product.movedim(axis, 0).reshape(product.shape[axis], -1)
    return np.asarray(rows.sum(1, dtype=torch.float64).cpu().numpy())


def activation_scores(module: fx.GraphModule, graph: ChannelGraph, batches: Iterable[Inputs]) -> dict[str, Scores]:
    """Per group, (lanes * size,): weights that read a unit, times the norm of its values, summed over layers.

    Wanda's score |W_ij| * ||x_j||_2 (Sun et al. 2024, arXiv:2306.11695, eq. 1), summed over a unit's weights; each
    layer divided by its own mean. Groups and lanes that no layer reads directly have their l2 scores. batches: inputs.
    """
    model = copy.deepcopy(module).eval()
    squares: dict[str, Scores] = {}

    def watch(name: str, dim: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def add(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0].detach().movedim(dim, 0)
            found = np.asarray(x.reshape(x.shape[0], -1).square().sum(1, dtype=torch.float64).cpu().numpy())
            squares[name] = squares[name] + found if name in squares else found

        return add

    layers = {name: layer for name, layer in model.named_modules() if name in graph.layers}
    for name, layer in layers.items():
        if any(columns is not None for _, _, columns in graph.layers[name].weights):
            layer.register_forward_pre_hook(watch(name, 1 if isinstance(layer, nn.modules.conv._ConvNd) else -1))
    with torch.no_grad():
        for inputs in batches:
            model(*inputs)
    read = [(_inputs(graph, name), np.sqrt(found) * _column_sums(layers[name])) for name, found in squares.items()]
    scores = {}
    for group in graph.groups:
        norms = unit_scores(module, graph, group.name).reshape(group.lanes, -1)
        own = coupled(graph.places(group.name), group.lanes * group.size, read)
        found = np.zeros_like(norms) if own is None else own.reshape(group.lanes, -1)
        # Lanes inside a recurrent module are read where no one sees it.
        scores[group.name] = np.where(found.any(axis=1, keepdims=True), found, norms).ravel()
    return scores


def _inputs(graph: ChannelGraph, layer: str) -> Ids:
    inputs = graph.layers[layer].inputs
    assert inputs is not None
    return inputs


def _column_sums(layer: nn.Module) -> Scores:
    """Absolute sum of the weights that read each input channel, (inputs,)."""
    if isinstance(layer, nn.RNNBase):
        weights = [p for name, p in layer.named_parameters() if name in ("weight_ih_l0", "weight_ih_l0_reverse")]
        total = torch.stack([weight.abs().sum(0) for weight in weights]).sum(0)
    elif isinstance(layer, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        total = layer.weight.abs().flatten(1).sum(1)
    elif isinstance(layer, nn.modules.conv._ConvNd):
        by_group = layer.weight.abs().flatten(2).sum(2).reshape(layer.groups, -1, layer.in_channels // layer.groups)
        total = by_group.sum(1).flatten()
    else:
        weight = layer.get_parameter("weight")
        total = weight.abs().sum(0)
    return np.asarray(total.detach().to(torch.float64).cpu().numpy())

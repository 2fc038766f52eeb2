"""Scores of a group's units, and which units stay for a given count.

A unit's score is the sum over all coupled layers of the norm of its filters there, each layer divided by its own mean,
so that layers of different scale count alike.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from compressors.channel_tracking import Ids
from compressors.channels import ChannelGraph
from compressors.module_tree import get_tensor
from compressors.recipes.structured_pruning import Importance

Scores = NDArray[np.float64]


def unit_scores(
    module: fx.GraphModule, graph: ChannelGraph, group: str, importance: Importance = "l2", seed: int = 0
) -> Scores:
    """Scores (size,) of the units of `group`; larger is more important. Deterministic for a seed.

    batch_norm falls back to l2 for a group that no batch norm scales.
    """
    members = graph.members[group]
    if importance == "random":
        return np.random.default_rng((seed, zlib.crc32(group.encode()))).random(len(members))
    if importance == "batch_norm":
        scales = [_magnitudes(module, name, 0, "l1") for name in _norm_weights(module, graph)]
        scores = _coupled(members, graph, scales)
        if scores is not None:
            return scores
    order: Importance = "l1" if importance == "l1" else "l2"
    filters = [
        _magnitudes(module, f"{layer}.weight", axis, order)
        for layer in graph.group(group).layers
        for axis in _output_axes(graph, layer)
    ]
    scores = _coupled(members, graph, filters)
    return np.ones(len(members)) if scores is None else scores


def keep_units(scores: Scores, count: int) -> Ids:
    """Indices of the `count` highest scores in their original order; the earlier unit wins a tie."""
    best = np.argsort(-scores, kind="stable")[:count]
    return np.sort(best).astype(np.int64)


def _norm_weights(module: fx.GraphModule, graph: ChannelGraph) -> list[str]:
    names = [f"{name}.weight" for name, layer in graph.layers.items() if layer.inputs is None and not layer.produces]
    return [
        name
        for name in names
        if name in graph.axes and isinstance(module.get_submodule(name.removesuffix(".weight")), _BATCH_NORMS)
    ]


_BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


def _output_axes(graph: ChannelGraph, layer: str) -> list[int]:
    """The axis of a layer's weight that its outputs lie along."""
    outputs = graph.layers[layer].outputs
    axes = graph.axes.get(f"{layer}.weight", {})
    if graph.layers[layer].depthwise:
        return list(axes)
    return [axis for axis, units in axes.items() if set(units.tolist()) <= set(outputs.tolist())][:1]


def _magnitudes(module: fx.GraphModule, name: str, axis: int, order: Importance) -> tuple[str, int, Scores]:
    tensor = get_tensor(module, name)
    assert tensor is not None
    rows = tensor.detach().movedim(axis, 0).flatten(1) if tensor.dim() > 1 else tensor.detach()[:, None]
    norms = torch.linalg.vector_norm(rows, ord=1 if order == "l1" else 2, dim=1)
    return name, axis, norms.to(torch.float64).numpy()


def _coupled(members: Ids, graph: ChannelGraph, layers: list[tuple[str, int, Scores]]) -> Scores | None:
    """Sum over layers of the units' magnitudes there, each layer scaled to mean 1; None if no layer has any."""
    total, found = np.zeros(len(members)), False
    for name, axis, magnitudes in layers:
        where = position[graph.axes[name][axis]]
        inside = where >= 0
        if not inside.any():
            continue
        found = True
        scores = np.bincount(where[inside], weights=magnitudes[inside], minlength=len(members))
        total += scores / max(scores.mean(), 1e-12)
    return total if found else None

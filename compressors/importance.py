"""Scores of a group's units, and which units stay for a given count.

Norms read weights only: a unit's score is the sum over all coupled layers of the norm of its filters there, each layer
divided by its own mean, so that layers of different scale count alike. Criteria that need data stand in
`data_importance`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from compressors.channel_tracking import Ids
from compressors.channels import ChannelGraph
from compressors.module_tree import get_tensor
from compressors.recipes.structured_pruning import Importance

Scores = NDArray[np.float64]

_BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


def unit_scores(
    module: fx.GraphModule, graph: ChannelGraph, group: str, importance: Importance = "l2", seed: int = 0
) -> Scores:
    """Scores (lanes * size,) of the units of `group`; larger is more important. Deterministic for a seed.

    batch_norm falls back to l2 for a group that no batch norm scales; so do criteria that need data.
    """
    size = len(graph.members[group])
    if importance == "random":
        return np.random.default_rng((seed, zlib.crc32(group.encode()))).random(size)
    places = graph.places(group)
    if importance == "batch_norm":
        scales = [(graph.axes[name][0], magnitudes(module, name, 0, 1)) for name in _norm_weights(module, graph)]
        scores = coupled(places, size, scales)
        if scores is not None:
            return scores
    order = 1 if importance == "l1" else 2
    axes = producing_axes(graph, group)
    if importance == "group_l2":
        axes = [*axes, *reading_axes(graph, group)]
    filters = [(graph.axes[name][axis], magnitudes(module, name, axis, order)) for name, axis in axes]
    scores = coupled(places, size, filters)
    return np.ones(size) if scores is None else scores


def keep_units(scores: Scores, count: int, lanes: int = 1) -> Ids:
    """Indices of the `count` highest scores of each lane in their original order; the earlier unit wins a tie."""
    by_lane = scores.reshape(lanes, -1)
    best = np.argsort(-by_lane, axis=1, kind="stable")[:, :count]
    return np.sort((best + np.arange(lanes)[:, None] * by_lane.shape[1]).ravel()).astype(np.int64)


def producing_axes(graph: ChannelGraph, group: str) -> list[tuple[str, int]]:
    """Weights that make the group's channels, with the axis that those lie along."""
    layers = graph.group(group).layers
    return [(name, rows) for layer in layers for name, rows, _ in graph.layers[layer].weights if rows is not None]


def reading_axes(graph: ChannelGraph, group: str) -> list[tuple[str, int]]:
    """Weights that read the group's channels, with the axis that those lie along."""
    places = graph.places(group)
    weights = [weight for layer in graph.layers.values() for weight in layer.weights]
    return [
        (name, columns)
        for name, _, columns in weights
        if columns is not None and (places[graph.axes[name][columns]] >= 0).any()
    ]


def _norm_weights(module: fx.GraphModule, graph: ChannelGraph) -> list[str]:
    names = [f"{name}.weight" for name, layer in graph.layers.items() if layer.inputs is None and not layer.produces]
    return [
        name
        for name in names
        if name in graph.axes and isinstance(module.get_submodule(name.removesuffix(".weight")), _BATCH_NORMS)
    ]


def magnitudes(module: fx.GraphModule, name: str, axis: int, order: int) -> Scores:
    """Norm of every slice of a stored tensor along `axis`."""
    tensor = get_tensor(module, name)
    assert tensor is not None
    rows = tensor.detach().movedim(axis, 0).reshape(tensor.shape[axis], -1)
    norms = torch.linalg.vector_norm(rows, ord=order, dim=1)
    return np.asarray(norms.to(torch.float64).cpu().numpy())


def per_unit(places: Ids, size: int, numbers: Ids, values: Scores) -> Scores | None:
    """Sum of `values` (one per entry of `numbers`) over the positions of each unit; None if there are none."""
    where = places[numbers]
    inside = where >= 0
    if not inside.any():
        return None
    return np.bincount(where[inside], weights=values[inside], minlength=size).astype(np.float64)


def coupled(places: Ids, size: int, tensors: Iterable[tuple[Ids, Scores]]) -> Scores | None:
    """Sum over tensors of the units' values there, each tensor scaled to mean 1; None if no tensor has any."""
    found = [scores for numbers, values in tensors if (scores := per_unit(places, size, numbers, values)) is not None]
    return sum((scores / max(scores.mean(), 1e-12) for scores in found), np.zeros(size)) if found else None

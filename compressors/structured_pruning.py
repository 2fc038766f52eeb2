"""Removes channels: builds a smaller model from sliced weights, and proves that it equals the masked original."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from compressors.channel_recurrent import GATES
from compressors.channel_tracking import LayerChannels
from compressors.channels import ChannelGraph, Kept
from compressors.errors import ParityError
from compressors.importance import Scores, keep_units, unit_scores
from compressors.masking import masked_forward
from compressors.module_tree import get_tensor, has_attribute, place
from compressors.programs import relative_error
from compressors.pruned_calls import rewrite_calls
from compressors.pruning_amounts import kept_counts
from compressors.recipes.structured_pruning import StructuredPruning

PRUNING_TOLERANCE = 1e-4

Removed = Mapping[str, Iterable[int]]


def choose_removed(
    model: fx.GraphModule,
    graph: ChannelGraph,
    config: StructuredPruning,
    seed: int = 0,
    scores: Mapping[str, Scores] | None = None,
) -> dict[str, list[int]]:
    """Indices of the units that go, per group that loses any. Raises InvalidRecipe as `kept_counts` does.

    scores: per group; left out, they are the weights' (see `unit_scores`).
    """

    def scores_of(name: str) -> Scores:
        return unit_scores(model, graph, name, config.importance, seed) if scores is None else scores[name]

    removed = {}
    for name, count in kept_counts(graph, config, scores_of).items():
        lanes = graph.group(name).lanes
        kept = keep_units(scores_of(name), count, lanes)
        removed[name] = np.setdiff1d(np.arange(lanes * graph.sizes[name]), kept).tolist()
    return removed


def remove_units(model: fx.GraphModule, graph: ChannelGraph, removed: Removed) -> fx.GraphModule:
    """A new model without the removed units: weights sliced, sizes written into calls rewritten.

    Raises InvalidRecipe if `graph` is not of this very model, or lanes of a group lose different numbers of units.
    """
    graph.check(model)
    kept = graph.kept(removed)
    graph.check_lanes(kept)
    return _build(model, graph, kept, share=False)


def _build(model: fx.GraphModule, graph: ChannelGraph, kept: Kept, *, share: bool) -> fx.GraphModule:
    """share: tensors that lose nothing are the original's own instead of copies; for models that are only run."""
    new_graph = copy.deepcopy(model.graph)
    orders = rewrite_calls(new_graph, graph, kept)
    slicer = _Slicer(model, graph, kept, share=share)
    root = nn.Module()
    names = {str(node.target) for node in new_graph.find_nodes(op="call_module")}
    for name in sorted(names, key=lambda name: name.count(".")):
        place(root, name, slicer.layer(name))
    for name in sorted({str(node.target) for node in new_graph.find_nodes(op="get_attr")}):
        tensor = get_tensor(model, name)
        if name in orders:
            place(root, name, orders[name])
        elif tensor is not None and not has_attribute(root, name):
            place(root, name, slicer.tensor(name, tensor))
    pruned = fx.GraphModule(root, new_graph, class_name=type(model).__name__)
    pruned.train(model.training)
    return pruned


class _Slicer:
    """Copies layers with only the kept channels; a tensor with two names is copied once."""

    def __init__(self, model: fx.GraphModule, graph: ChannelGraph, kept: Kept, *, share: bool) -> None:
        self._model = model
        self._share = share
        self._graph = graph
        self._kept = kept
        self._copies: dict[int, torch.Tensor] = {}

    def tensor(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in self._copies:
            value = tensor.detach()
            for axis, units in self._graph.axes.get(name, {}).items():
                keep = self._kept[units]
                if not keep.all():
                    value = value.index_select(axis, torch.from_numpy(np.flatnonzero(keep)).to(value.device))
            if name in self._graph.reordered:
                keep = self._kept[self._graph.reordered[name]]
                value = value[torch.from_numpy(np.argsort(~keep, kind="stable"))] if not keep.all() else value
            if value.data_ptr() == tensor.data_ptr() and not self._share:
                value = value.clone()
            is_parameter = isinstance(tensor, nn.Parameter)
            self._copies[id(tensor)] = nn.Parameter(value, tensor.requires_grad) if is_parameter else value
        return self._copies[id(tensor)]

    def layer(self, name: str) -> nn.Module:
        original = self._model.get_submodule(name)
        layer = copy.copy(original)
        for own in ("_parameters", "_buffers"):
            stored: dict[str, torch.Tensor | None] = getattr(original, own)
            layer.__dict__[own] = {
                key: None if value is None else self.tensor(f"{name}.{key}", value) for key, value in stored.items()
            }
        layer.__dict__["_modules"] = {}
        if isinstance(layer, nn.RNNBase):
            layer._init_flat_weights()
        channels = self._graph.layers.get(name)
        if channels is not None:
            _resize(layer, channels, self._kept)
        return layer


def _resize(layer: Any, channels: LayerChannels, kept: Kept) -> None:
    """Brings the sizes that a layer remembers in line with its sliced tensors."""
    outputs = int(kept[channels.outputs].sum())
    inputs = None if channels.inputs is None else int(kept[channels.inputs].sum())
    if isinstance(layer, nn.modules.conv._ConvNd):
        assert inputs is not None
        assert channels.groups is not None
        layer.in_channels, layer.out_channels = inputs, outputs
        layer.groups = int(kept[channels.groups].sum())
    elif isinstance(layer, nn.Linear):
        assert inputs is not None
        layer.in_features, layer.out_features = inputs, outputs
    elif isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        layer.embedding_dim = outputs
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels, layer.num_groups = outputs, outputs // channels.group_width
    elif isinstance(layer, nn.RNNBase):
        rows, layer.input_size = layer.get_parameter("weight_ih_l0").shape
        layer.hidden_size = rows // GATES[layer.mode]
        layer.proj_size = layer.get_parameter("weight_hh_l0").shape[1] if layer.proj_size else 0
    else:
        layer.num_features = outputs


def verify_pruned(
    model: fx.GraphModule,
    graph: ChannelGraph,
    removed: Removed,
    pruned: fx.GraphModule,
    inputs: tuple[torch.Tensor, ...],
) -> float:
    """Largest relative difference between `pruned` and the masked original, both in evaluation mode.

    Raises ParityError above PRUNING_TOLERANCE.
    """
    modes = (model.training, pruned.training)
    model.eval()
    pruned.eval()
    try:
        with torch.no_grad():
            expected = pytree.tree_leaves(masked_forward(model, graph, removed, *inputs))
            actual = pytree.tree_leaves(pruned(*inputs))
    finally:
        model.train(modes[0])
        pruned.train(modes[1])
    error = max(relative_error(a, e) for a, e in zip(actual, expected, strict=True))
    if not error <= PRUNING_TOLERANCE:
        raise ParityError(
            f"the pruned model differs from the masked original by {error:.2g}: above {PRUNING_TOLERANCE:g}; "
            f"keep all channels of {sorted(removed)}",
            max_error=error,
        )
    return error


def verified_groups(
    model: fx.GraphModule, graph: ChannelGraph, example_inputs: tuple[torch.Tensor, ...]
) -> ChannelGraph:
    """`graph` without the groups whose removal does not equal masking; the reasons stand in `left_out`.

    Removes every other unit of one group at a time: two forward passes per group.
    """
    reasons: dict[str, str] = {}
    for group in graph.groups:
        name, size = group.name, group.size
        pattern = range(0, size - 1, 2) if size > 2 else [0]
        removed = {name: [lane * size + (unit + lane) % size for lane in range(group.lanes) for unit in pattern]}
        try:
            pruned = _build(model, graph, graph.kept(removed), share=True)
            verify_pruned(model, graph, removed, pruned, example_inputs)
        except (ParityError, RuntimeError, ValueError) as error:
            reasons[name] = str(error).strip().splitlines()[0]
    return graph.without(reasons)

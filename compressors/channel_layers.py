"""How channels pass through layers: one rule per kind of module.

Each rule gets the call's node and the layer and returns the layout of the output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx, nn

from compressors.channel_recurrent import recurrent
from compressors.channel_rules import pad_to_length
from compressors.channel_tracking import NOTHING, Ids, LayerChannels, Layout, Tracked, Tracker

Rule = Callable[[Tracker, fx.Node, str, Any], Tracked]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_POOLS: dict[type[nn.Module], int] = {
    **{kind: d for d, kind in enumerate((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), 1)},
    **{kind: d for d, kind in enumerate((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), 1)},
    **{kind: d for d, kind in enumerate((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), 1)},
}


def layer_layout(tracker: Tracker, node: fx.Node) -> Tracked:
    """Layout of the output of a `call_module` node; what has no rule is protected."""
    name = str(node.target)
    layer = tracker.module.get_submodule(name)
    for kinds, rule in _RULES:
        if isinstance(layer, kinds):
            return rule(tracker, node, name, layer)
    for source in node.all_input_nodes:
        tracker.protect_value(source, f"{name} ({type(layer).__name__}) has no rule")
    return None


def _connect(tracker: Tracker, node: fx.Node, name: str, ids: Ids, dim: int) -> Layout:
    """Joins the input's ids along `dim` with a layer's own, protects them if there are none; what else is tracked."""
    source = node.args[0]
    found = tracker.ids(source, dim)
    if found is not None:
        tracker.join(found, ids)
    else:
        tracker.protect(ids, f"{name} reads a tensor whose channels are fixed")
    return tracker.layout(source).without(dim)


def _fix(tracker: Tracker, layout: Layout, dims: range, reason: str) -> Layout:
    """Protects what is tracked along `dims`; the rest."""
    for dim in [dim for dim in layout.axes if dim in dims]:
        tracker.protect(layout.axes[dim], reason)
        layout = layout.without(dim)
    return layout


def _convolution(tracker: Tracker, node: fx.Node, name: str, layer: Any) -> Tracked:
    spatial = len(layer.kernel_size)
    shape = tracker.shape(node.args[0])
    if shape is None or len(shape) != spatial + 2:
        tracker.protect_value(node.args[0], f"{name} reads a tensor without a batch")
        return NOTHING
    if name not in tracker.layers:
        _add_convolution(tracker, name, layer)
    channels = tracker.layers[name]
    assert channels.inputs is not None
    others = _connect(tracker, node, name, channels.inputs, 1)
    others = _fix(tracker, others, range(2, len(shape)), f"{name} convolves over them")
    return Layout({**others.axes, 1: channels.outputs})


def _add_convolution(tracker: Tracker, name: str, layer: Any) -> None:
    """Grouped convolutions are grids of groups and of places in each: whole groups may go, and the same places in
    all. With one input a group (depthwise), a group goes with its input."""
    transposed = isinstance(layer, _TRANSPOSED)
    count = layer.groups
    groups, reads = tracker.fresh(count), tracker.fresh(layer.in_channels // count)
    filters = tracker.fresh(layer.out_channels // count)
    inputs, outputs = tracker.compose(groups, reads), tracker.compose(groups, filters)
    weight = {0: inputs, 1: filters} if transposed else {0: outputs, 1: reads}
    tracker.axes[f"{name}.weight"] = weight
    if layer.bias is not None:
        tracker.axes[f"{name}.bias"] = {0: outputs}
    depthwise = count > 1 and count == layer.in_channels
    if not depthwise:
        tracker.marks.append(("groups", groups))
    rows, columns = (1, 0) if transposed and not depthwise else (0, None if depthwise else 1)
    tracker.layers[name] = LayerChannels(
        outputs, inputs, reads, groups, produces=True, depthwise=depthwise, weights=((f"{name}.weight", rows, columns),)
    )


def _linear(tracker: Tracker, node: fx.Node, name: str, layer: nn.Linear) -> Tracked:
    if name not in tracker.layers:
        inputs, outputs = tracker.fresh(layer.in_features), tracker.fresh(layer.out_features)
        tracker.axes[f"{name}.weight"] = {0: outputs, 1: inputs}
        if layer.bias is not None:
            tracker.axes[f"{name}.bias"] = {0: outputs}
        tracker.layers[name] = LayerChannels(outputs, inputs, produces=True, weights=((f"{name}.weight", 0, 1),))
    channels = tracker.layers[name]
    shape = tracker.shape(node.args[0])
    assert shape is not None
    assert channels.inputs is not None
    others = _connect(tracker, node, name, channels.inputs, len(shape) - 1)
    return Layout({**others.axes, len(shape) - 1: channels.outputs})


def _embedding(tracker: Tracker, node: fx.Node, name: str, layer: nn.Embedding | nn.EmbeddingBag) -> Tracked:
    if name not in tracker.layers:
        outputs = tracker.fresh(layer.embedding_dim)
        tracker.axes[f"{name}.weight"] = {1: outputs}
        tracker.layers[name] = LayerChannels(outputs, produces=True, weights=((f"{name}.weight", 1, None),))
    tracker.protect_value(node.args[0], f"{name} reads it as ids")
    return Layout({len(tracker.shapes[node]) - 1: tracker.layers[name].outputs})


def _add_norm(tracker: Tracker, name: str, layer: nn.Module, ids: Ids, group_width: int = 0) -> None:
    for attribute in ("weight", "bias", "running_mean", "running_var"):
        if getattr(layer, attribute, None) is not None:
            tracker.axes[f"{name}.{attribute}"] = {0: ids}
    tracker.layers[name] = LayerChannels(ids, group_width=group_width)


def _batch_norm(tracker: Tracker, node: fx.Node, name: str, layer: nn.BatchNorm2d) -> Tracked:
    if name not in tracker.layers:
        _add_norm(tracker, name, layer, tracker.fresh(layer.num_features))
    ids = tracker.layers[name].outputs
    return Layout({**_connect(tracker, node, name, ids, 1).axes, 1: ids})


def _group_norm(tracker: Tracker, node: fx.Node, name: str, layer: nn.GroupNorm) -> Tracked:
    """Statistics mix the channels of a group, so whole groups go: the others then see no difference."""
    shape = tracker.shape(node.args[0])
    assert shape is not None
    if name not in tracker.layers:
        ids = tracker.fresh(layer.num_channels)
        width = layer.num_channels // layer.num_groups
        _add_norm(tracker, name, layer, ids, group_width=width)
        tracker.join(np.repeat(ids[::width], width), ids)
    ids = tracker.layers[name].outputs
    others = _connect(tracker, node, name, ids, 1)
    others = _fix(tracker, others, range(2, len(shape)), f"{name} normalises over them")
    return Layout({**others.axes, 1: ids})


def _layer_norm(tracker: Tracker, node: fx.Node, name: str, layer: Any) -> Tracked:
    """A zeroed channel still counts in mean and variance, so the pruned model pads with zeros, normalises over the
    length it had and cuts the padding off. The norm keeps its size; its gains follow the order."""
    shape = tracker.shape(node.args[0])
    assert shape is not None
    layout = tracker.layout(node.args[0])
    last = len(shape) - 1
    if len(layer.normalized_shape) > 1:
        return _fix(tracker, layout, range(len(shape) - len(layer.normalized_shape), len(shape)), f"{name} mixes them")
    source = node.args[0]
    assert isinstance(source, fx.Node)
    ids = pad_to_length(tracker, node, source, last, last)
    if ids is None:
        ids = tracker.fresh(shape[last])
        tracker.protect(ids, f"{name} reads a tensor whose channels are fixed")
    for attribute in ("weight", "bias"):
        if getattr(layer, attribute, None) is not None:
            tracker.join(tracker.reordered.setdefault(f"{name}.{attribute}", ids), ids)
    return layout


def _pool(tracker: Tracker, node: fx.Node, name: str, layer: nn.Module) -> Tracked:
    shape = tracker.shape(node.args[0])
    assert shape is not None
    first = len(shape) - _POOLS[type(layer)]
    return _fix(tracker, tracker.layout(node.args[0]), range(first, len(shape)), f"{name} pools over them")


def _same(tracker: Tracker, node: fx.Node, name: str, layer: nn.Module) -> Tracked:
    return tracker.layout(node.args[0])


_RULES: tuple[tuple[tuple[type[nn.Module], ...], Rule], ...] = (
    (_CONVOLUTIONS, _convolution),
    ((nn.Linear,), _linear),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    ((nn.RNNBase,), recurrent),
    (_BATCH_NORMS, _batch_norm),
    ((nn.GroupNorm,), _group_norm),
    ((nn.LayerNorm, nn.RMSNorm), _layer_norm),
    (tuple(_POOLS), _pool),
    ((*_DROPOUTS, nn.Identity), _same),
)

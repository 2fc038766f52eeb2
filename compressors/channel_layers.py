"""How channels pass through layers: one rule per kind of module.

Each rule gets the call's node and the layer and returns the layout of the output, None if that carries no channels
that could be removed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx, nn

from compressors.channel_tracking import Ids, LayerChannels, Layout, Tracker

Rule = Callable[[Tracker, fx.Node, str, Any], "Layout | None"]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_POOLS: dict[type[nn.Module], int] = {
    **{kind: d for d, kind in enumerate((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), 1)},
    **{kind: d for d, kind in enumerate((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), 1)},
    **{kind: d for d, kind in enumerate((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), 1)},
}


def layer_layout(tracker: Tracker, node: fx.Node) -> Layout | None:
    """Layout of the output of a `call_module` node; what has no rule is protected."""
    name = str(node.target)
    layer = tracker.module.get_submodule(name)
    for kinds, rule in _RULES:
        if isinstance(layer, kinds):
            return rule(tracker, node, name, layer)
    tracker.protect_value(node.args[0], f"{name} ({type(layer).__name__}) has no rule")
    return None


def _connect(tracker: Tracker, node: fx.Node, name: str, ids: Ids, dim: int) -> bool:
    """Joins the input's ids with a layer's own along `dim`; protects both if the input is laid out otherwise."""
    source = node.args[0]
    layout = tracker.layout(source)
    if layout is not None and layout.dim == dim and len(layout.ids) == len(ids):
        tracker.join(layout.ids, ids)
        return True
    tracker.protect_value(source, f"{name} reads it along another dimension")
    tracker.protect(ids, f"{name} reads a tensor whose channels are fixed")
    return False


def _convolution(tracker: Tracker, node: fx.Node, name: str, layer: Any) -> Layout | None:
    spatial = len(layer.kernel_size)
    shape = tracker.shape(node.args[0])
    if shape is None or len(shape) != spatial + 2:
        tracker.protect_value(node.args[0], f"{name} reads a tensor without a batch")
        return None
    if name not in tracker.layers:
        _add_convolution(tracker, name, layer)
    channels = tracker.layers[name]
    assert channels.inputs is not None
    _connect(tracker, node, name, channels.inputs, 1)
    return Layout(1, channels.outputs)


def _add_convolution(tracker: Tracker, name: str, layer: Any) -> None:
    transposed = isinstance(layer, _TRANSPOSED)
    groups = layer.groups
    inputs = tracker.fresh(layer.in_channels)
    depthwise = groups > 1 and groups == layer.in_channels
    outputs = np.repeat(inputs, layer.out_channels // groups) if depthwise else tracker.fresh(layer.out_channels)
    if groups > 1 and not depthwise:
        # Groups must stay equally wide: the same positions go in every group.
        for ids in (inputs, outputs):
            by_group = ids.reshape(groups, -1)
            tracker.join(np.repeat(by_group[:1], groups, axis=0).ravel(), by_group.ravel())
    if depthwise:
        weight = {0: inputs} if transposed else {0: outputs}
    else:
        in_axis, out_axis = (0, 1) if transposed else (1, 0)
        weight = {in_axis: inputs, out_axis: outputs}
        grouped_axis = 1
        weight[grouped_axis] = weight[grouped_axis][: len(weight[grouped_axis]) // groups]
    tracker.axes[f"{name}.weight"] = weight
    if layer.bias is not None:
        tracker.axes[f"{name}.bias"] = {0: outputs}
    tracker.layers[name] = LayerChannels(outputs, inputs, produces=not depthwise, depthwise=depthwise)


def _linear(tracker: Tracker, node: fx.Node, name: str, layer: nn.Linear) -> Layout | None:
    if name not in tracker.layers:
        inputs, outputs = tracker.fresh(layer.in_features), tracker.fresh(layer.out_features)
        tracker.axes[f"{name}.weight"] = {0: outputs, 1: inputs}
        if layer.bias is not None:
            tracker.axes[f"{name}.bias"] = {0: outputs}
        tracker.layers[name] = LayerChannels(outputs, inputs, produces=True)
    channels = tracker.layers[name]
    shape = tracker.shape(node.args[0])
    assert shape is not None
    assert channels.inputs is not None
    _connect(tracker, node, name, channels.inputs, len(shape) - 1)
    return Layout(len(shape) - 1, channels.outputs)


def _embedding(tracker: Tracker, node: fx.Node, name: str, layer: nn.Embedding) -> Layout | None:
    if name not in tracker.layers:
        outputs = tracker.fresh(layer.embedding_dim)
        tracker.axes[f"{name}.weight"] = {1: outputs}
        tracker.layers[name] = LayerChannels(outputs, produces=True)
    tracker.protect_value(node.args[0], f"{name} reads it as ids")
    shape = tracker.shape(node.args[0])
    assert shape is not None
    return Layout(len(shape), tracker.layers[name].outputs)


def _add_norm(tracker: Tracker, name: str, layer: nn.Module, ids: Ids, group_width: int = 0) -> None:
    for attribute in ("weight", "bias", "running_mean", "running_var"):
        if getattr(layer, attribute, None) is not None:
            tracker.axes[f"{name}.{attribute}"] = {0: ids}
    tracker.layers[name] = LayerChannels(ids, group_width=group_width)


def _batch_norm(tracker: Tracker, node: fx.Node, name: str, layer: nn.BatchNorm2d) -> Layout | None:
    if name not in tracker.layers:
        _add_norm(tracker, name, layer, tracker.fresh(layer.num_features))
    connected = _connect(tracker, node, name, tracker.layers[name].outputs, 1)
    return tracker.layout(node.args[0]) if connected else None


def _group_norm(tracker: Tracker, node: fx.Node, name: str, layer: nn.GroupNorm) -> Layout | None:
    """Statistics mix the channels of a group, so whole groups go: the others then see no difference."""
    if name not in tracker.layers:
        ids = tracker.fresh(layer.num_channels)
        width = layer.num_channels // layer.num_groups
        _add_norm(tracker, name, layer, ids, group_width=width)
        tracker.join(np.repeat(ids[::width], width), ids)
    connected = _connect(tracker, node, name, tracker.layers[name].outputs, 1)
    return tracker.layout(node.args[0]) if connected else None


def _layer_norm(tracker: Tracker, node: fx.Node, name: str, layer: nn.LayerNorm) -> Layout | None:
    """A removed channel changes mean and variance of the others, a zeroed one changes them otherwise."""
    layout, shape = tracker.layout(node.args[0]), tracker.shape(node.args[0])
    assert shape is not None
    if layout is None or layout.dim < len(shape) - len(layer.normalized_shape):
        return layout
    tracker.protect(layout.ids, f"{name} normalises over them")
    return None


def _pool(tracker: Tracker, node: fx.Node, name: str, layer: nn.Module) -> Layout | None:
    layout, shape = tracker.layout(node.args[0]), tracker.shape(node.args[0])
    assert shape is not None
    if layout is None or layout.dim < len(shape) - _POOLS[type(layer)]:
        return layout
    tracker.protect(layout.ids, f"{name} pools over them")
    return None


def _same(tracker: Tracker, node: fx.Node, name: str, layer: nn.Module) -> Layout | None:
    return tracker.layout(node.args[0])


_RULES: tuple[tuple[tuple[type[nn.Module], ...], Rule], ...] = (
    (_CONVOLUTIONS, _convolution),
    ((nn.Linear,), _linear),
    ((nn.Embedding,), _embedding),
    (_BATCH_NORMS, _batch_norm),
    ((nn.GroupNorm,), _group_norm),
    ((nn.LayerNorm,), _layer_norm),
    (tuple(_POOLS), _pool),
    ((*_DROPOUTS, nn.Identity), _same),
)

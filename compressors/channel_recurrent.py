"""How hidden units pass through LSTM, GRU and plain recurrent layers.

Every layer and direction of one module has the same number of hidden units, so unit i of all of them is one. Without
its weights a unit starts at zero and stays there: its candidate value is tanh(0).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from compressors.channel_tracking import Ids, LayerChannels, Layout, Tracked, Tracker

# Gates per hidden unit, by the layer's mode.
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def recurrent(tracker: Tracker, node: fx.Node, name: str, layer: Any) -> Tracked:
    """Layouts of (output, h) or (output, (h, c)); h and c are (layers * directions, batch, units)."""
    source, *states = node.args
    shape = tracker.shape(source)
    assert shape is not None
    if name not in tracker.layers:
        _add(tracker, name, layer)
    channels = tracker.layers[name]
    assert channels.inputs is not None
    layout = tracker.layout(source)
    for dim, ids in layout.axes.items():
        if dim < len(shape) - 1:
            tracker.protect(ids, f"{name} runs over them")
    found = tracker.ids(source, len(shape) - 1)
    if found is not None:
        tracker.join(found, channels.inputs)
    else:
        tracker.protect(channels.inputs, f"{name} reads a tensor whose channels are fixed")
    hidden, cells = channels.outputs, _cells(tracker, name, layer)
    given = states[0] if states else None
    kinds = [hidden, cells] if layer.mode == "LSTM" else [hidden]
    for state, ids in zip(given if isinstance(given, (list, tuple)) else [given], kinds, strict=False):
        if state is not None:
            _connect_state(tracker, name, state, ids)
    output = Layout({len(shape) - 1: np.tile(hidden, 2 if layer.bidirectional else 1)})
    last: list[Tracked] = [Layout({len(shape) - 1: ids}) for ids in kinds]
    return [output, last if layer.mode == "LSTM" else last[0]]


def _add(tracker: Tracker, name: str, layer: Any) -> None:
    """Gates are stacked along axis 0 of the weights; later layers read both directions of the one before."""
    gates = GATES[layer.mode]
    directions = 2 if layer.bidirectional else 1
    inputs, cells = tracker.fresh(layer.input_size), tracker.fresh(layer.hidden_size)
    hidden = tracker.fresh(layer.proj_size) if layer.proj_size else cells
    for depth in range(layer.num_layers):
        read = inputs if depth == 0 else np.tile(hidden, directions)
        for suffix in (f"l{depth}", f"l{depth}_reverse")[:directions]:
            stacked = np.tile(cells, gates)
            tracker.axes[f"{name}.weight_ih_{suffix}"] = {0: stacked, 1: read}
            tracker.axes[f"{name}.weight_hh_{suffix}"] = {0: stacked, 1: hidden}
            if layer.bias:
                tracker.axes[f"{name}.bias_ih_{suffix}"] = {0: stacked}
                tracker.axes[f"{name}.bias_hh_{suffix}"] = {0: stacked}
            if layer.proj_size:
                tracker.axes[f"{name}.weight_hr_{suffix}"] = {0: hidden, 1: cells}
    weights = tuple((key, 0, 1) for key in tracker.axes if key.startswith(f"{name}.weight_"))
    tracker.layers[name] = LayerChannels(hidden, inputs, produces=True, weights=weights)


def _cells(tracker: Tracker, name: str, layer: Any) -> Ids:
    return tracker.axes[f"{name}.weight_ih_l0"][0][: layer.hidden_size]


def _connect_state(tracker: Tracker, name: str, state: fx.Node, ids: Ids) -> None:
    layout, shape = tracker.layout(state), tracker.shapes[state]
    found = tracker.ids(state, len(shape) - 1)
    if found is not None:
        tracker.join(found, ids)
    else:
        tracker.protect(ids, f"{name} starts from states that are fixed")
    for dim in layout.axes.keys() - {len(shape) - 1}:
        tracker.protect(layout.axes[dim], f"{name} has one state per layer")

"""How hidden units pass through LSTM, GRU and plain recurrent layers.

Layers and directions of one module are lanes: they have equally many hidden units, but each loses its own. Without its
weights a unit starts at zero and stays there: its candidate value is tanh(0).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from compressors.channel_tracking import Ids, LayerChannels, Layout, Tracked, Tracker

# Gates per hidden unit, by the layer's mode.
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
Lanes = tuple[Ids, ...]


def recurrent(tracker: Tracker, node: fx.Node, name: str, layer: Any) -> Tracked:
    """Layouts of (output, h) or (output, (h, c)); h and c are (layers * directions, batch, units)."""
    source, *states = node.args
    last = len(tracker.shapes[source]) - 1  # type: ignore[index]
    if name not in tracker.layers:
        _add(tracker, name, layer)
    inputs = tracker.layers[name].inputs
    assert inputs is not None
    for dim, ids in tracker.layout(source).axes.items():
        if dim < last:
            tracker.protect(ids, f"{name} runs over them")
    found = tracker.ids(source, last)
    if found is not None:
        tracker.join(found, inputs)
    else:
        tracker.protect(inputs, f"{name} reads a tensor whose channels are fixed")
    hidden, cells = _lanes(tracker, name, layer)
    kinds = [hidden, cells] if layer.mode == "LSTM" else [hidden]
    given = states[0] if states else None
    for state, lanes in zip(given if isinstance(given, (list, tuple)) else [given], kinds, strict=False):
        if isinstance(state, fx.Node):
            _connect_state(tracker, name, state, lanes)
    output = Layout({last: np.concatenate(hidden[-2 if layer.bidirectional else -1 :])})
    layouts: list[Tracked] = [Layout(lanes=lanes) if len(lanes) > 1 else Layout({last: lanes[0]}) for lanes in kinds]
    return [output, layouts if layer.mode == "LSTM" else layouts[0]]


def _suffixes(layer: Any) -> list[str]:
    """Ends of the names of the weights, lane by lane."""
    ends = ("", "_reverse") if layer.bidirectional else ("",)
    return [f"l{depth}{end}" for depth in range(layer.num_layers) for end in ends]


def _add(tracker: Tracker, name: str, layer: Any) -> None:
    """Gates are stacked along axis 0 of the weights; later layers read all directions of the one before."""
    directions = 2 if layer.bidirectional else 1
    inputs = tracker.fresh(layer.input_size)
    cells = tuple(tracker.fresh(layer.hidden_size) for _ in _suffixes(layer))
    hidden = tuple(tracker.fresh(layer.proj_size) for _ in cells) if layer.proj_size else cells
    for lane, suffix in enumerate(_suffixes(layer)):
        first = (lane // directions - 1) * directions
        read = inputs if lane < directions else np.concatenate(hidden[first : first + directions])
        stacked = np.tile(cells[lane], GATES[layer.mode])
        tracker.axes[f"{name}.weight_ih_{suffix}"] = {0: stacked, 1: read}
        tracker.axes[f"{name}.weight_hh_{suffix}"] = {0: stacked, 1: hidden[lane]}
        if layer.bias:
            tracker.axes[f"{name}.bias_ih_{suffix}"] = {0: stacked}
            tracker.axes[f"{name}.bias_hh_{suffix}"] = {0: stacked}
        if layer.proj_size:
            tracker.axes[f"{name}.weight_hr_{suffix}"] = {0: hidden[lane], 1: cells[lane]}
    weights = tuple((key, 0, 1) for key in tracker.axes if key.startswith(f"{name}.weight_"))
    tracker.layers[name] = LayerChannels(np.concatenate(hidden), inputs, produces=True, weights=weights)
    if len(cells) > 1:
        tracker.lanes[name] = hidden
    if layer.proj_size:
        # PyTorch tells projected states by there being fewer of them.
        tracker.protect(np.concatenate(cells), f"{name}: its states are projected to fewer")


def _lanes(tracker: Tracker, name: str, layer: Any) -> tuple[Lanes, Lanes]:
    """Ids of hidden states and of cells, per lane."""
    suffixes = _suffixes(layer)
    cells = tuple(tracker.axes[f"{name}.weight_ih_{suffix}"][0][: layer.hidden_size] for suffix in suffixes)
    return tuple(tracker.axes[f"{name}.weight_hh_{suffix}"][1] for suffix in suffixes), cells


def _connect_state(tracker: Tracker, name: str, state: fx.Node, lanes: Lanes) -> None:
    given = tracker.lanes_of(state)
    if given:
        for ours, theirs in zip(lanes, given, strict=True):
            tracker.join(ours, theirs)
        return
    last = len(tracker.shapes[state]) - 1
    found = tracker.ids(state, last)
    if found is None:
        for ids in lanes:
            tracker.protect(ids, f"{name} starts from states that are fixed")
    else:
        for ids in lanes:
            tracker.join(found, ids)
    for dim in tracker.layout(state).axes.keys() - {last}:
        tracker.protect(tracker.layout(state).axes[dim], f"{name} has one state per layer")

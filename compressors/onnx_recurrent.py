"""Emitters of recurrent layers: ONNX's LSTM, GRU and RNN, one node per layer of the module, both directions in it.

ONNX computes (length, batch, features) only (ONNX Runtime refuses layout=1) and stacks the blocks of its gates in
another order than torch: LSTM i, o, f, c against i, f, c, o; GRU z, r, h against r, z, h. linear_before_reset=1 is
torch's form of the GRU, whose reset gate scales the recurrent product with its bias (Cho et al. 2014 reset before it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressors.errors import UnsupportedModel
from compressors.onnx_emission import Emission, Value, emits

# torch's gate blocks in ONNX's order.
GATE_ORDER: dict[str, tuple[int, ...]] = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}

States = Value | tuple[Value, ...] | None


@emits(nn.LSTM)
def lstm(emission: Emission, layer: nn.LSTM, x: Value, states: States = None) -> tuple[str, tuple[str, str]]:
    if layer.proj_size:
        raise UnsupportedModel(f"proj_size={layer.proj_size}: ONNX has no LSTM with projected states; use proj_size=0")
    output, (hidden, cell) = _layers(emission, layer, x, states, "LSTM", {})
    return output, (hidden, cell)


@emits(nn.GRU)
def gru(emission: Emission, layer: nn.GRU, x: Value, states: States = None) -> tuple[str, str]:
    output, (hidden,) = _layers(emission, layer, x, states, "GRU", {"linear_before_reset": 1})
    return output, hidden


@emits(nn.RNN)
def rnn(emission: Emission, layer: nn.RNN, x: Value, states: States = None) -> tuple[str, str]:
    activation = {"tanh": "Tanh", "relu": "Relu"}[layer.nonlinearity]
    directions = 2 if layer.bidirectional else 1
    output, (hidden,) = _layers(emission, layer, x, states, "RNN", {"activations": [activation] * directions})
    return output, hidden


def _layers(
    emission: Emission, layer: nn.RNNBase, x: Value, states: States, op: str, settings: dict[str, Any]
) -> tuple[str, tuple[str, ...]]:
    """Names of the output and of each final state, laid out as the module does."""
    batched = x.rank == 3
    source = x.name
    if not batched:
        source = emission.add("Unsqueeze", x, emission.ints([1]))
    elif layer.batch_first:
        source = emission.add("Transpose", x, perm=[1, 0, 2])
    directions = 2 if layer.bidirectional else 1
    given = states if isinstance(states, tuple) else () if states is None else (states,)
    starts = [_per_layer(emission, state, layer.num_layers, directions, batched) for state in given]
    finals: list[tuple[str, ...]] = []
    for index in range(layer.num_layers):
        weights = _weights(emission, layer, index, op)
        outputs, *last = emission.add_many(
            op,
            source,
            *weights,
            "",
            *(start[index] for start in starts),
            outputs=3 if op == "LSTM" else 2,
            hidden_size=layer.hidden_size,
            direction="bidirectional" if directions == 2 else None,
            **settings,
        )
        finals.append(tuple(last))
        is_last = index == layer.num_layers - 1
        source = _joined_directions(emission, layer, outputs, batch_first=is_last and batched and layer.batch_first)
    joined = [
        parts[0] if len(parts) == 1 else emission.add("Concat", *parts, axis=0) for parts in zip(*finals, strict=True)
    ]
    if not batched:
        axis = emission.ints([1])
        source, joined = emission.add("Squeeze", source, axis), [emission.add("Squeeze", s, axis) for s in joined]
    return source, tuple(joined)


def _joined_directions(emission: Emission, layer: nn.RNNBase, name: str, *, batch_first: bool) -> str:
    """(length, directions, batch, hidden) to (length, batch, directions * hidden), or with the batch in front."""
    if not layer.bidirectional:
        name = emission.add("Squeeze", name, emission.ints([1]))
        return emission.add("Transpose", name, perm=[1, 0, 2]) if batch_first else name
    name = emission.add("Transpose", name, perm=[2, 0, 1, 3] if batch_first else [0, 2, 1, 3])
    return emission.add("Reshape", name, emission.ints([0, 0, 2 * layer.hidden_size]))


def _per_layer(emission: Emission, state: Value, layers: int, directions: int, batched: bool) -> Sequence[str]:
    """The initial state (layers * directions, batch, hidden) as one tensor per layer."""
    name = state.name if batched else emission.add("Unsqueeze", state, emission.ints([1]))
    if layers == 1:
        return (name,)
    return emission.add_many("Split", name, emission.ints([directions] * layers), outputs=layers, axis=0)


def _weights(emission: Emission, layer: nn.RNNBase, index: int, op: str) -> list[str]:
    """W (directions, gates * hidden, inputs), R (directions, gates * hidden, hidden) and B (directions, 2 * gates *
    hidden), the input's bias before the recurrent one; B is "" without biases."""
    ends = ["", "_reverse"] if layer.bidirectional else [""]

    def stacked(kind: str) -> Tensor:
        return torch.stack([_reordered(getattr(layer, f"{kind}_l{index}{end}"), op) for end in ends])

    names = [emission.parameter(f"{kind}_l{index}", stacked(kind)) for kind in ("weight_ih", "weight_hh")]
    if not layer.bias:
        return [*names, ""]
    biases = torch.cat([stacked("bias_ih"), stacked("bias_hh")], dim=1)
    return [*names, emission.parameter(f"bias_l{index}", biases)]


def _reordered(parameter: Tensor, op: str) -> Tensor:
    blocks = parameter.detach().chunk(len(GATE_ORDER[op]))
    return torch.cat([blocks[i] for i in GATE_ORDER[op]])

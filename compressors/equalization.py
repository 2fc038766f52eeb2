"""Cross-layer equalisation: moves scale between consecutive layers, channel by channel, without changing the function.

Nagel et al. 2019, arXiv:1906.04721, section 4.1. Where f(s x) = s f(x) for s > 0 (ReLU, pooling, ...), the output
channels of one layer may be divided by s and the input channels of the next multiplied by it. Their ranges r1 and r2
become equal with s = sqrt(r1 / r2), eq. 11; a chain of layers is gone through until nothing moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from compressors.aten_modules import bound_arguments, operator_name
from compressors.layer_weights import CONVOLUTIONS, TRANSPOSED
from compressors.shape_recording import record_shapes

_ROUNDS = 30
# log2 of a channel's scale below which a round counts as still.
_STILL = 0.01
# A channel that hardly anything reads would be blown up without a bound.
_LARGEST = 2.0**8

_CHANNELWISE_MODULES = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
)
_CHANNELWISE = frozenset(
    [
        "relu",
        "leaky_relu",
        "alias",
        "clone",
        "contiguous",
        "dropout",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "adaptive_max_pool2d",
        "avg_pool1d",
        "avg_pool2d",
        "max_pool1d",
        "max_pool2d",
        "upsample_nearest1d.vec",
        "upsample_nearest2d.vec",
        "upsample_nearest2d",
        "upsample_bilinear2d.vec",
        "upsample_bilinear2d",
    ]
)
_REDUCTIONS = frozenset(["mean.dim", "sum.dim_IntList", "amax", "amin"])
_RESHAPES = frozenset(["view", "reshape", "flatten.using_ints", "_unsafe_view"])


@dataclass(frozen=True)
class Pair:
    """A layer and all layers that read its output, through operators that a scale per channel passes."""

    first: str
    readers: tuple[str, ...]


def find_pairs(model: fx.GraphModule, inputs: tuple[Tensor, ...]) -> list[Pair]:
    """In order of the graph. Layers that are called twice, or share a weight, are left out."""
    shapes = record_shapes(model, inputs)
    layers = _single_layers(model)
    pairs = []
    for node, name in layers.items():
        layer = model.get_submodule(name)
        axis = len(shapes[node]) - 1 if isinstance(layer, nn.Linear) else 1
        readers = _readers(model, node, axis, _channels(layer), shapes, layers)
        if readers:
            pairs.append(Pair(name, tuple(dict.fromkeys(readers))))
    return pairs


@torch.no_grad()
def equalize(model: fx.GraphModule, pairs: Sequence[Pair]) -> None:
    """Rescales the weights and biases of `pairs` in place until their ranges per channel agree."""
    for _ in range(_ROUNDS):
        moved = 0.0
        for pair in pairs:
            first = model.get_submodule(pair.first)
            readers = [model.get_submodule(name) for name in pair.readers]
            outgoing = _output_range(first)
            incoming = torch.stack([_input_range(reader, len(outgoing)) for reader in readers]).amax(0)
            scale = (outgoing / incoming).sqrt().clamp(1 / _LARGEST, _LARGEST)
            scale = torch.where((outgoing > 0) & (incoming > 0), scale, 1.0)
            _divide_outputs(first, scale)
            for reader in readers:
                _multiply_inputs(reader, scale)
            moved = max(moved, float(scale.log2().abs().max()))
        if moved < _STILL:
            break


def _single_layers(model: fx.GraphModule) -> dict[fx.Node, str]:
    """Calls of layers that can be rescaled, each called once and with parameters of its own."""
    calls: dict[str, list[fx.Node]] = {}
    for node in model.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    owners: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found = {}
    for name, nodes in calls.items():
        layer = model.get_submodule(name)
        alone = len(nodes) == 1 and all(owners[id(parameter)] == 1 for parameter in layer.parameters())
        if alone and isinstance(layer, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)):
            found[nodes[0]] = name
    return found


def _readers(
    model: fx.GraphModule,
    node: fx.Node,
    axis: int,
    channels: int,
    shapes: Mapping[fx.Node, Any],
    layers: Mapping[fx.Node, str],
) -> list[str]:
    """Layers behind `node`, whose `channels` channels lie along `axis`; empty if anything else reads them."""
    found: list[str] = []
    for user in node.users:
        if user in layers:
            if not _takes(model.get_submodule(layers[user]), axis, channels, len(shapes[node])):
                return []
            found.append(layers[user])
            continue
        behind = _passed(model, user, node, axis, shapes)
        further = [] if behind is None else _readers(model, user, behind, channels, shapes, layers)
        if not further:
            return []
        found += further
    return found


def _takes(layer: nn.Module, axis: int, channels: int, rank: int) -> bool:
    """Whether the layer's input channels are those along `axis`, or what is left of them after flattening."""
    if isinstance(layer, nn.Linear):
        return axis == rank - 1 and layer.in_features % channels == 0
    return axis == 1 and rank > 2 and getattr(layer, "in_channels", None) == channels


def _passed(
    model: fx.GraphModule, user: fx.Node, source: fx.Node, axis: int, shapes: Mapping[fx.Node, Any]
) -> int | None:
    """Where the channels lie behind `user`, None if a positive scale per channel does not pass it."""
    if user.op == "call_module":
        return axis if isinstance(model.get_submodule(str(user.target)), _CHANNELWISE_MODULES) else None
    name = operator_name(user)
    if not name or user.args[0] is not source:
        return None
    before, behind = shapes[source], shapes[user]
    if name in _CHANNELWISE:
        return axis
    if name in _REDUCTIONS:
        arguments = bound_arguments(user)
        dims = arguments["dim"]
        reduced = sorted({d % len(before) for d in ([dims] if isinstance(dims, int) else dims or range(len(before)))})
        if axis in reduced:
            return None
        return axis if arguments["keepdim"] else axis - sum(d < axis for d in reduced)
    if name == "pad":
        arguments = bound_arguments(user)
        touched = len(arguments["pad"]) // 2
        zeros = arguments["mode"] == "constant" and not arguments["value"]
        # Padded channels would be new ones; a border of zeros, or of neighbours, scales with its channel.
        return axis if (zeros or arguments["mode"] != "constant") and axis < len(before) - touched else None
    if name in _RESHAPES and axis == 1 and len(behind) == 2 and behind[0] == before[0]:
        return 1  # (batch, channels, ...) flattened: each channel becomes a run of features
    return None


def _channels(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def _output_view(layer: Any) -> tuple[Tensor, tuple[int, ...]]:
    """The weight with output channels along two axes of four, (groups, ., channels / groups, .) or so, and the axes
    that are none."""
    weight = layer.weight
    if isinstance(layer, TRANSPOSED):
        view = weight.view(layer.groups, layer.in_channels // layer.groups, layer.out_channels // layer.groups, -1)
        return view, (1, 3)
    return weight.view(weight.shape[0], 1, 1, -1), (1, 2, 3)


def _input_view(layer: Any, channels: int) -> tuple[Tensor, tuple[int, ...]]:
    """The weight with input channels along the remaining axes; a linear layer behind a flattening reads each channel
    in a run of features."""
    weight = layer.weight
    if isinstance(layer, nn.Linear):
        return weight.view(layer.out_features, channels, -1), (0, 2)
    if isinstance(layer, TRANSPOSED):
        return weight.view(layer.in_channels, -1), (1,)
    groups = layer.groups
    return weight.view(groups, layer.out_channels // groups, layer.in_channels // groups, -1), (1, 3)


def _output_range(layer: nn.Module) -> Tensor:
    view, others = _output_view(layer)
    return view.abs().amax(others).reshape(-1)


def _input_range(layer: nn.Module, channels: int) -> Tensor:
    view, others = _input_view(layer, channels)
    return view.abs().amax(others).reshape(-1)


def _divide_outputs(layer: Any, scale: Tensor) -> None:
    view, others = _output_view(layer)
    view.div_(scale.reshape([1 if i in others else size for i, size in enumerate(view.shape)]))
    if layer.bias is not None:
        layer.bias.div_(scale)


def _multiply_inputs(layer: Any, scale: Tensor) -> None:
    view, others = _input_view(layer, len(scale))
    view.mul_(scale.reshape([1 if i in others else size for i, size in enumerate(view.shape)]))

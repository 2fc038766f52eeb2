"""Bias correction: what rounding adds to the mean of a layer's output is taken off its bias.

Nagel et al. 2019, arXiv:1906.04721, section 4.2, in the empirical form of its appendix: the shift of each output
channel, E[y] - E[y~], is measured on inputs, layer by layer, with the layers before corrected already.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from compressors.layer_weights import CONVOLUTIONS, TRANSPOSED
from compressors.lockstep import Rewrite, walk

_LAYERS = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)


@dataclass(frozen=True)
class Grid:
    """Rounding of an activation: (clip(round(x / scale) + zero_point, 0, levels) - zero_point) * scale."""

    scale: float
    zero_point: int
    levels: int

    def __call__(self, x: Tensor) -> Tensor:
        codes = (x / self.scale).round() + self.zero_point
        return (codes.clamp(0, self.levels) - self.zero_point) * self.scale


def correctable(model: fx.GraphModule, encoded: Iterable[str]) -> list[str]:
    """Layers with a bias, or room for one, whose weight is among the parameters `encoded`, called once each."""
    names = set(encoded)
    calls: dict[str, int] = {}
    for node in model.graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
    return [
        name
        for name, count in calls.items()
        if count == 1 and f"{name}.weight" in names and isinstance(model.get_submodule(name), _LAYERS)
    ]


def add_biases(model: fx.GraphModule, layers: Iterable[str], value: float = 0.0) -> None:
    """Gives the layers without a bias one, in place."""
    for name in layers:
        layer = model.get_submodule(name)
        assert isinstance(layer, _LAYERS)
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.full((_channels(layer),), value))


def correct_biases(
    model: fx.GraphModule,
    floats: Mapping[str, Tensor],
    layers: Iterable[str],
    batches: Iterable[tuple[Tensor, ...]],
    activations: Mapping[str, Grid],
) -> None:
    """Corrects the biases of `layers` in place.

    model: in eval mode, its weights rounded. floats: what rounded parameters held before. activations: by layer, the
    grid on which its input is rounded at run time, if it is.
    """
    reference = copy.deepcopy(model)
    for name, parameter in reference.named_parameters():
        if name in floats:
            parameter.data = floats[name].clone()
    wanted = set(layers)

    def visit(node: fx.Node, inputs: Sequence[Sequence[Tensor]]) -> None:
        name = str(node.target)
        if name not in wanted:
            return
        exact, rounded = (
            _mean_output(network.get_submodule(name), batch)
            for network, batch in zip((reference, model), inputs, strict=True)
        )
        bias = model.get_parameter(f"{name}.bias")
        bias.data += (exact - rounded).to(bias.dtype)

    rewrites: dict[str, Rewrite] = dict(activations)
    walk((reference, model), batches, visit, rewrites)


def _mean_output(layer: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """(channels,), float64, over all rows and positions."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for batch in inputs:
        output: Tensor = layer(batch)
        by_channel = output.movedim(-1 if isinstance(layer, nn.Linear) else _channel_axis(layer, output), 0).flatten(1)
        total = total + by_channel.double().sum(1)
        count += by_channel.shape[1]
    return total / max(count, 1)


def _channel_axis(layer: nn.Module, output: Tensor) -> int:
    """1, or 0 for one row without a batch axis."""
    assert isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED))
    return output.dim() - len(layer.kernel_size) - 1


def _channels(layer: nn.Module) -> int:
    assert isinstance(layer, _LAYERS)
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels

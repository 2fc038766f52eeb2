"""Folding of batch normalisation into the layer before it, as every inference export does.

In eval mode a BatchNorm is the affine map y = x * k + (beta - mean * k), k = gamma / sqrt(var + eps), per channel; a
convolution or linear layer absorbs it (Jacob et al. 2018, arXiv:1712.05877, section 3.2).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

_BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_Foldable = _Convolution | _Transposed | nn.Linear


def fold_batch_norm(module: fx.GraphModule) -> fx.GraphModule:
    """Returns a copy in eval mode in which every BatchNorm with running statistics that alone reads a convolution,
    transposed convolution or linear layer is merged into it. Other BatchNorms stay. `module` is left untouched.

    A BatchNorm after a Linear works on axis 1, which holds the features only if the values are matrices: such a pair is
    merged where `node.meta["val"]` says so.
    """
    folded = copy.deepcopy(module).eval()
    modules = dict(folded.named_modules())
    calls: dict[str, int] = {}
    for node in folded.graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    for node in list(folded.graph.nodes):
        pair = _foldable_pair(node, modules, calls)
        if pair is None:
            continue
        layer, norm = pair
        _absorb(layer, norm)
        node.replace_all_uses_with(node.args[0])
        folded.graph.erase_node(node)
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded


def _foldable_pair(
    node: fx.Node, modules: dict[str, nn.Module], calls: dict[str, int]
) -> tuple[_Foldable, _BatchNorm] | None:
    """The layer and the norm that `node` calls, if folding them changes nothing else in the graph."""
    if node.op != "call_module":
        return None
    norm = modules[str(node.target)]
    producer = node.args[0]
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or not isinstance(producer, fx.Node):
        return None
    if producer.op != "call_module" or len(producer.users) != 1:
        return None
    layer = modules[str(producer.target)]
    # A layer that is called twice would get the norm in both places.
    if not isinstance(layer, _Foldable) or calls[str(producer.target)] != 1 or calls[str(node.target)] != 1:
        return None
    if isinstance(layer, nn.Linear) and getattr(producer.meta.get("val"), "ndim", None) != 2:
        return None
    return layer, norm


def _absorb(layer: _Foldable, norm: _BatchNorm) -> None:
    """Scales the layer's output channels by k and shifts its bias, in float64 so that rounding happens once."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    gain = torch.rsqrt(variance.double() + norm.eps)
    if norm.weight is not None:
        gain = gain * norm.weight.detach().double()
    shift = -mean.double() * gain
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    if layer.bias is not None:
        shift = shift + layer.bias.detach().double() * gain
    weight = layer.weight.detach()
    layer.weight = nn.Parameter((weight.double() * _per_output(layer, gain)).to(weight.dtype))
    layer.bias = nn.Parameter(shift.to(weight.dtype))


def _per_output(layer: _Foldable, gain: Tensor) -> Tensor:
    """`gain` (channels,) reshaped to multiply the output-channel axis of the layer's weight."""
    if not isinstance(layer, _Transposed):
        return gain.reshape(-1, *[1] * (layer.weight.dim() - 1))
    # Weight of a transposed convolution: (in, out / groups, *kernel); group g owns inputs g * in / groups and so on.
    per_group = gain.reshape(layer.groups, 1, -1)
    rows = layer.in_channels // layer.groups
    spread = per_group.expand(layer.groups, rows, per_group.shape[2]).reshape(layer.in_channels, -1)
    return spread.reshape(*spread.shape, *[1] * (layer.weight.dim() - 2))

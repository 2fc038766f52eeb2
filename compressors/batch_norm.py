"""Folding of batch normalisation into the layer before or behind it, as every inference export does.

In eval mode a BatchNorm is the affine map y = x * k + (beta - mean * k), k = gamma / sqrt(var + eps), per channel; the
convolution or linear layer before it absorbs it (Jacob et al. 2018, arXiv:1712.05877, section 3.2), or else the one
behind it, as long as no padding brings in zeros that the norm has not seen.
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
    transposed convolution or linear layer is merged into it; one that only an unpadded convolution or a linear layer
    reads is merged into that. Other BatchNorms stay. `module` is left untouched.

    A BatchNorm works on axis 1, which holds the features of a Linear only if the values are matrices: such a pair is
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
    for node in list(folded.graph.nodes):
        following = _following_pair(node, modules, calls)
        if following is None:
            continue
        _absorb_before(*following)
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


def _following_pair(
    node: fx.Node, modules: dict[str, nn.Module], calls: dict[str, int]
) -> tuple[_BatchNorm, _Convolution | nn.Linear] | None:
    """The norm that `node` calls and the layer that alone reads it, if the layer can take the norm in.

    Padding brings zeros behind the norm that would have to be its shift; the border of a transposed convolution sums
    fewer weights than its middle, so that a shift of its inputs is no shift of its outputs.
    """
    if node.op != "call_module" or len(node.users) != 1:
        return None
    norm, (reader,) = modules[str(node.target)], node.users
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or calls[str(node.target)] != 1:
        return None
    if reader.op != "call_module" or calls[str(reader.target)] != 1 or reader.args[0] is not node:
        return None
    layer = modules[str(reader.target)]
    if isinstance(layer, nn.Linear):
        return (norm, layer) if getattr(node.meta.get("val"), "ndim", None) == 2 else None
    if not isinstance(layer, _Convolution):
        return None
    unpadded = layer.padding == "valid" or (not isinstance(layer.padding, str) and not any(layer.padding))
    return (norm, layer) if unpadded else None


def _affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """(k, beta - mean * k), both (channels,) in float64, so that rounding happens once."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    gain = torch.rsqrt(variance.double() + norm.eps)
    if norm.weight is not None:
        gain = gain * norm.weight.detach().double()
    shift = -mean.double() * gain
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return gain, shift


def _absorb_before(norm: _BatchNorm, layer: _Convolution | nn.Linear) -> None:
    """Scales what the layer reads by k; its bias takes what the weights make of the shift."""
    gain, shift = _affine(norm)
    weight = layer.weight.detach().double()
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    # Weight: (out, in / groups, *kernel); outputs of group g read the inputs of group g.
    shape = (groups, 1, -1)
    spread = (groups, weight.shape[0] // groups, weight.shape[1])
    flat = (weight.shape[0], weight.shape[1], *[1] * (weight.dim() - 2))
    offset = (weight * shift.reshape(shape).expand(spread).reshape(flat)).flatten(1).sum(1)
    if layer.bias is not None:
        offset = offset + layer.bias.detach().double()
    scaled = weight * gain.reshape(shape).expand(spread).reshape(flat)
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(scaled.to(dtype))
    layer.bias = nn.Parameter(offset.to(dtype))


def _absorb(layer: _Foldable, norm: _BatchNorm) -> None:
    """Scales the layer's output channels by k and shifts its bias."""
    gain, shift = _affine(norm)
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

"""A layer as a matrix product: which columns its weight's rows are multiplied with.

A linear layer's columns are its inputs; a convolution's are the patches that its kernel sees, one per output position
(im2col). With groups, each group of output channels has columns of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from compressors.layer_weights import CONVOLUTIONS

# Numbers in the patches of one step: bounds memory.
_STEP = 2**24


def has_columns(layer: nn.Module) -> bool:
    """Whether the layer is a product of its weight's rows with columns: Linear, Conv1d, Conv2d, Conv3d."""
    return isinstance(layer, (nn.Linear, *CONVOLUTIONS))


def weight_rows(layer: nn.Module, tensor: Tensor) -> Tensor:
    """A tensor of the weight's shape as (groups, output channels / groups, numbers per row)."""
    groups = getattr(layer, "groups", 1)
    return tensor.reshape(groups, tensor.shape[0] // groups, -1)


def sample_columns(layer: nn.Module, inputs: Sequence[Tensor], count: int, seed: int) -> Tensor:
    """(groups, numbers per row, n) of the columns that `inputs`, one tensor per batch, present to `layer`; n is `count`
    or as many as there are. The same seed picks the same positions for inputs of the same shapes."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    wanted = -(-count // max(len(inputs), 1))
    for batch in inputs:
        for piece, share in _pieces(layer, batch, wanted):
            columns = _columns(layer, piece)
            if share < columns.shape[2]:
                chosen = torch.randperm(columns.shape[2], generator=generator)[:share].sort().values
                columns = columns[:, :, chosen]
            parts.append(columns)
    return torch.cat(parts, 2)


def _pieces(layer: nn.Module, batch: Tensor, wanted: int) -> list[tuple[Tensor, int]]:
    """A batch in pieces whose patches fit into memory, and how many columns to take from each."""
    if isinstance(layer, nn.Linear):
        return [(batch, wanted)]
    assert isinstance(layer, CONVOLUTIONS)
    spatial = len(layer.kernel_size)
    rows = batch if batch.dim() == spatial + 2 else batch[None]
    per_row = prod(rows.shape[1:]) * prod(layer.kernel_size)
    pieces = torch.split(rows, max(_STEP // max(per_row, 1), 1))
    return [(piece, -(-wanted * len(piece) // len(rows))) for piece in pieces]


def _columns(layer: nn.Module, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, layer.in_features).t()[None]
    assert isinstance(layer, CONVOLUTIONS)
    kernel = tuple(layer.kernel_size)
    padding: Any = layer.padding
    if layer.padding_mode != "zeros":
        x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        padding = 0
    # A convolution with one-hot kernels moves every number of a patch to a channel of its own.
    convolve: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[len(kernel) - 1]
    places = prod(kernel)
    one_hot = torch.eye(places, dtype=x.dtype).reshape(places, 1, *kernel)
    rows, channels = x.shape[:2]
    planes = x.reshape(rows * channels, 1, *x.shape[2:])
    patches: Tensor = convolve(planes, one_hot, None, layer.stride, padding, layer.dilation)
    by_group = patches.reshape(rows, layer.groups, channels // layer.groups * places, -1)
    return by_group.permute(1, 2, 0, 3).reshape(layer.groups, channels // layer.groups * places, -1)

"""torchao's affine quantisation primitives on every convolution and linear layer: symmetric, to nearest."""

from __future__ import annotations

import copy

import torch
from torch import fx, nn
from torchao.quantization.quant_primitives import (
    MappingType,
    choose_qparams_affine,
    dequantize_affine,
    quantize_affine,
)


def quantize_weights(model: fx.GraphModule, bits: int) -> fx.GraphModule:
    """A copy whose weights lie on torchao's grid, one scale per output channel. torchao keeps each code in a byte."""
    changed = copy.deepcopy(model)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    for layer in changed.modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        weight = layer.weight.detach()
        block = (1, *weight.shape[1:])
        scale, zero = choose_qparams_affine(weight, MappingType.SYMMETRIC, block, torch.int8, low, high)
        codes = quantize_affine(weight, block, scale, zero, torch.int8, low, high)
        with torch.no_grad():
            layer.weight.copy_(dequantize_affine(codes, block, scale, zero, torch.int8, low, high))
    return changed.eval()

"""Emitters of nn modules: convolutions, linear layers, norms, embeddings, pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from compressors.errors import UnsupportedModel
from compressors.onnx_emission import Array, Emission, Value, emits

aten: Any = torch.ops.aten


@emits(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(emission: Emission, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Value) -> str:
    if layer.padding_mode != "zeros":
        raise UnsupportedModel(f"padding_mode={layer.padding_mode!r}: only 'zeros' is exported")
    kernel, dilation = list(layer.kernel_size), list(layer.dilation)
    if isinstance(layer.padding, str):
        # 'same' puts the odd element at the end, as torch does.
        total = [d * (k - 1) if layer.padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        begin = [t // 2 for t in total]
        end = [t - b for t, b in zip(total, begin, strict=True)]
    else:
        begin = end = list(layer.padding)
    name, added = _batched(emission, x, len(kernel) + 2)
    result = emission.add(
        "Conv",
        name,
        emission.parameter("weight", layer.weight),
        emission.parameter("bias", layer.bias) if layer.bias is not None else "",
        kernel_shape=kernel,
        strides=_unless(list(layer.stride), 1),
        pads=_unless([*begin, *end], 0),
        dilations=_unless(dilation, 1),
        group=layer.groups if layer.groups != 1 else None,
    )
    return emission.add("Squeeze", result, emission.ints([0])) if added else result


@emits(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_convolution(
    emission: Emission,
    layer: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d,
    x: Value,
    output_size: Sequence[int] | None = None,
) -> str:
    if output_size is not None:
        raise UnsupportedModel("output_size at the call is not exported; use output_padding of the layer")
    padding = [int(p) for p in layer.padding]
    return emission.add(
        "ConvTranspose",
        x,
        emission.parameter("weight", layer.weight),
        emission.parameter("bias", layer.bias) if layer.bias is not None else "",
        kernel_shape=list(layer.kernel_size),
        strides=_unless(list(layer.stride), 1),
        pads=_unless([*padding, *padding], 0),
        output_padding=_unless(list(layer.output_padding), 0),
        dilations=_unless(list(layer.dilation), 1),
        group=layer.groups if layer.groups != 1 else None,
    )


@emits(nn.Linear)
def linear(emission: Emission, layer: nn.Linear, x: Value) -> str:
    if x.rank == 2:
        bias = emission.parameter("bias", layer.bias) if layer.bias is not None else ""
        return emission.add("Gemm", x, emission.parameter("weight", layer.weight), bias, transB=1)
    product = emission.add("MatMul", x, emission.parameter("weight", layer.weight.t()))
    return emission.add("Add", product, emission.parameter("bias", layer.bias)) if layer.bias is not None else product


@emits(aten.linear.default)
def functional_linear(emission: Emission, x: Value, weight: Value, bias: Value | None = None) -> str:
    if x.rank == 2 and weight.rank == 2:
        return emission.add("Gemm", x, weight, bias or "", transB=1)
    axes = list(range(weight.rank))
    flipped = emission.add("Transpose", weight, perm=[*axes[:-2], axes[-1], axes[-2]])
    product = emission.add("MatMul", x, flipped)
    return emission.add("Add", product, bias) if bias is not None else product


@emits(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batch_norm(emission: Emission, layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, x: Value) -> str:
    if layer.running_mean is None or layer.running_var is None:
        raise UnsupportedModel("BatchNorm without running statistics depends on its batch and cannot be exported")
    gain = layer.weight if layer.weight is not None else torch.ones_like(layer.running_var)
    shift = layer.bias if layer.bias is not None else torch.zeros_like(layer.running_mean)
    return emission.add(
        "BatchNormalization",
        x,
        emission.parameter("weight", gain),
        emission.parameter("bias", shift),
        emission.parameter("running_mean", layer.running_mean),
        emission.parameter("running_var", layer.running_var),
        epsilon=float(layer.eps),
    )


@emits(nn.LayerNorm)
def layer_norm(emission: Emission, layer: nn.LayerNorm, x: Value) -> str:
    gain = layer.weight if layer.weight is not None else torch.ones(layer.normalized_shape)
    bias = emission.parameter("bias", layer.bias) if layer.bias is not None else ""
    return emission.add(
        "LayerNormalization",
        x,
        emission.parameter("weight", gain),
        bias,
        axis=-len(layer.normalized_shape),
        epsilon=float(layer.eps),
    )


@emits(nn.RMSNorm)
def rms_norm(emission: Emission, layer: nn.RMSNorm, x: Value) -> str:
    weight = "" if layer.weight is None else emission.parameter("weight", layer.weight)
    return _rms_norm(emission, x, len(layer.normalized_shape), weight, layer.eps)


@emits(aten.rms_norm.default)
def functional_rms_norm(
    emission: Emission,
    x: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    eps: float | None = None,
) -> str:
    return _rms_norm(emission, x, len(normalized_shape), "" if weight is None else weight.name, eps)


def _rms_norm(emission: Emission, x: Value, axes: int, weight: str, eps: float | None) -> str:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich 2019, eq. 4), in the steps that the runtime fuses."""
    epsilon = emission.scalar(eps if eps is not None else torch.finfo(x.dtype).eps, x.dtype)
    square = emission.add("Pow", x, emission.scalar(2.0, x.dtype))
    mean = emission.add("ReduceMean", square, emission.ints(range(-axes, 0)), keepdims=1)
    normed = emission.add("Div", x, emission.add("Sqrt", emission.add("Add", mean, epsilon)))
    return emission.add("Mul", normed, weight) if weight else normed


@emits(nn.GroupNorm)
def group_norm(emission: Emission, layer: nn.GroupNorm, x: Value) -> str:
    # The runtime has a kernel for InstanceNormalization and expands GroupNormalization into a dozen operators.
    groups, channels = layer.num_groups, layer.num_channels
    unit, zero = np.ones(groups, dtype=np.float32), np.zeros(groups, dtype=np.float32)
    grouped = emission.add("Reshape", x, emission.ints([0, groups, -1]))
    normed = emission.add(
        "InstanceNormalization",
        grouped,
        emission.constant(unit),
        emission.constant(zero),
        epsilon=float(layer.eps),
    )
    result = emission.add("Reshape", normed, emission.ints([0, *x.shape[1:]]))
    if layer.weight is None:
        return result
    spread = [channels, *[1] * (x.rank - 2)]
    scaled = emission.add("Mul", result, emission.parameter("weight", layer.weight.reshape(spread)))
    return emission.add("Add", scaled, emission.parameter("bias", layer.bias.reshape(spread)))


@emits(nn.Embedding)
def embedding(emission: Emission, layer: nn.Embedding, indices: Value) -> str:
    if layer.max_norm is not None:
        raise UnsupportedModel("Embedding with max_norm rewrites its weights while it runs; remove max_norm")
    return emission.add("Gather", emission.parameter("weight", layer.weight), indices)


@emits(nn.EmbeddingBag)
def embedding_bag(emission: Emission, layer: nn.EmbeddingBag, indices: Value) -> str:
    """indices: (batch, length). Padding counts neither in a sum nor in a mean."""
    if layer.max_norm is not None:
        raise UnsupportedModel("EmbeddingBag with max_norm rewrites its weights while it runs; remove max_norm")
    vectors = emission.add("Gather", emission.parameter("weight", layer.weight), indices)
    axis = emission.ints([1])
    op = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax"}[layer.mode]
    if layer.padding_idx is None:
        return emission.add(op, vectors, axis, keepdims=0)
    if layer.mode == "max":
        raise UnsupportedModel("EmbeddingBag with mode='max' and padding_idx is not exported; use 'sum' or 'mean'")
    padding = emission.add("Equal", indices, emission.scalar(layer.padding_idx, indices.dtype))
    counted = emission.cast(emission.add("Not", padding), layer.weight.dtype)
    counted = emission.add("Unsqueeze", counted, emission.ints([2]))
    total = emission.add("ReduceSum", emission.add("Mul", vectors, counted), axis, keepdims=0)
    if layer.mode == "sum":
        return total
    count = emission.add("ReduceSum", counted, axis, keepdims=0)
    return emission.add("Div", total, emission.add("Max", count, emission.scalar(1.0, layer.weight.dtype)))


@emits(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity)
def dropout_layer(emission: Emission, layer: nn.Module, x: Value) -> str:
    return x.name


@emits(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
def max_pool(emission: Emission, layer: nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d, x: Value) -> str:
    if layer.return_indices:
        raise UnsupportedModel("MaxPool with return_indices=True is not exported")
    rank = x.rank - 2
    padding = _each(layer.padding, rank)
    kernel = _each(layer.kernel_size, rank)
    return emission.add(
        "MaxPool",
        x,
        kernel_shape=kernel,
        strides=_unless(_each(layer.stride if layer.stride is not None else kernel, rank), 1),
        pads=_unless([*padding, *padding], 0),
        dilations=_unless(_each(layer.dilation, rank), 1),
        ceil_mode=1 if layer.ceil_mode else None,
    )


@emits(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
def average_pool(emission: Emission, layer: nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d, x: Value) -> str:
    if getattr(layer, "divisor_override", None) is not None:
        raise UnsupportedModel(f"divisor_override={layer.divisor_override}: not exported; scale the result instead")
    rank = x.rank - 2
    padding = _each(layer.padding, rank)
    kernel = _each(layer.kernel_size, rank)
    return emission.add(
        "AveragePool",
        x,
        kernel_shape=kernel,
        strides=_unless(_each(layer.stride if layer.stride is not None else kernel, rank), 1),
        pads=_unless([*padding, *padding], 0),
        ceil_mode=1 if layer.ceil_mode else None,
        count_include_pad=1 if layer.count_include_pad and any(padding) else None,
    )


@emits(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
def adaptive_average_pool(emission: Emission, layer: Any, x: Value) -> str:
    return _adaptive(emission, x, "AveragePool")


@emits(aten.adaptive_avg_pool1d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default)
def functional_adaptive_average_pool(emission: Emission, x: Value, output_size: Sequence[int]) -> str:
    return _adaptive(emission, x, "AveragePool")


@emits(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)
def adaptive_max_pool(emission: Emission, layer: Any, x: Value) -> str:
    if layer.return_indices:
        raise UnsupportedModel("AdaptiveMaxPool with return_indices=True is not exported")
    return _adaptive(emission, x, "MaxPool")


@emits(aten.adaptive_max_pool1d.default, aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
def functional_adaptive_max_pool(emission: Emission, x: Value, output_size: Sequence[int]) -> tuple[str, str]:
    """Values without indices; export refuses a graph that reads the latter."""
    return _adaptive(emission, x, "MaxPool"), ""


def _adaptive(emission: Emission, x: Value, op: str) -> str:
    """Global pooling for output size 1; windows of equal size where the output divides the input; other averages as
    products with the windows' shares, axis by axis."""
    target = emission.result.shape[2:]
    if all(size == 1 for size in target):
        return emission.add(f"Global{op}", x)
    source = x.shape[2:]
    if not any(have % want for have, want in zip(source, target, strict=True)):
        window = [have // want for have, want in zip(source, target, strict=True)]
        if all(size == 1 for size in window):
            return x.name
        return emission.add(op, x, kernel_shape=window, strides=_unless(window, 1))
    if op != "AveragePool" or len(source) > 2:
        raise UnsupportedModel(f"adaptive pooling from {list(source)} to {list(target)}: the sizes must divide evenly")
    result = emission.add("MatMul", x, emission.constant(window_means(source[-1], target[-1])))
    if len(source) == 1:
        return result
    return emission.add("MatMul", emission.constant(window_means(source[0], target[0]).T), result)


def window_means(length: int, windows: int) -> Array:
    """(length, windows): what averages a row of `length` numbers over torch's adaptive windows, which may overlap."""
    means = np.zeros((length, windows), dtype=np.float32)
    for window in range(windows):
        first, last = window * length // windows, -((window + 1) * length // -windows)
        means[first:last, window] = 1 / (last - first)
    return means


@emits(aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
def functional_convolution(
    emission: Emission,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> str:
    """A convolution whose weight is computed (weight standardisation and the like)."""
    rank = weight.rank - 2
    pads = _each(padding, rank)
    return emission.add(
        "Conv",
        x,
        weight,
        bias or "",
        strides=_unless(_each(stride, rank), 1),
        pads=_unless([*pads, *pads], 0),
        dilations=_unless(_each(dilation, rank), 1),
        group=groups if groups != 1 else None,
    )


@emits(aten.layer_norm.default)
def functional_layer_norm(
    emission: Emission,
    x: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> str:
    gain = weight or emission.constant(np.ones(list(normalized_shape), dtype=np.float32))
    return emission.add("LayerNormalization", x, gain, bias or "", axis=-len(normalized_shape), epsilon=float(eps))


@emits(aten.embedding.default)
def functional_embedding(
    emission: Emission,
    weight: Value,
    indices: Value,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> str:
    return emission.add("Gather", weight, indices)


def _each(numbers: int | Sequence[int], rank: int) -> list[int]:
    """One number per spatial axis, as torch reads a single one."""
    listed = [numbers] if isinstance(numbers, int) else list(numbers)
    return listed * rank if len(listed) == 1 else listed


def _unless(numbers: list[int], default: int) -> list[int] | None:
    """None where ONNX's own default says the same: an attribute less in the file."""
    return None if all(number == default for number in numbers) else numbers


def _batched(emission: Emission, x: Value, rank: int) -> tuple[str, bool]:
    """torch accepts one sample without a batch axis, ONNX does not."""
    if x.rank == rank:
        return x.name, False
    return emission.add("Unsqueeze", x, emission.ints([0])), True

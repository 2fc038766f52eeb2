"""Emitters of reductions, matrix products and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from compressors.errors import UnsupportedModel
from compressors.onnx_emission import Emission, Emitter, Value, emits
from compressors.onnx_pointwise import operand

aten: Any = torch.ops.aten


def _reduction(op: str) -> Emitter:
    def emit(
        emission: Emission,
        x: Value,
        dim: int | Sequence[int] | None = None,
        keepdim: bool = False,
        dtype: torch.dtype | None = None,
    ) -> str:
        source = operand(emission, x, emission.result.dtype)
        dims = [dim] if isinstance(dim, int) else list(dim or [])
        keep = None if keepdim else 0
        pooled = sorted(d % x.rank for d in dims)
        if op == "ReduceMean" and x.rank > 2 and pooled == list(range(2, x.rank)):
            # The same numbers, and a kernel that exists for integers.
            pooled_name = emission.add("GlobalAveragePool", source)
            return pooled_name if keepdim else emission.add("Squeeze", pooled_name, emission.ints(pooled))
        axes = "" if not dims else emission.ints(dims)
        return emission.add(op, source, axes, keepdims=keep)

    return emit


emits(aten.mean.dim, aten.mean.default)(_reduction("ReduceMean"))
emits(aten.sum.dim_IntList, aten.sum.default)(_reduction("ReduceSum"))
emits(aten.amax.default, aten.max.default)(_reduction("ReduceMax"))
emits(aten.amin.default, aten.min.default)(_reduction("ReduceMin"))


@emits(aten.max.dim)
def max_with_indices(emission: Emission, x: Value, dim: int, keepdim: bool = False) -> tuple[str, str]:
    values = emission.add("ReduceMax", x, emission.ints([dim]), keepdims=int(keepdim))
    return values, emission.add("ArgMax", x, axis=dim, keepdims=int(keepdim))


@emits(aten.argmax.default)
def argmax(emission: Emission, x: Value, dim: int | None = None, keepdim: bool = False) -> str:
    if dim is None:
        raise UnsupportedModel("argmax over all dimensions at once is not exported; flatten first")
    return emission.add("ArgMax", x, axis=dim, keepdims=int(keepdim))


@emits(aten.matmul.default, aten.bmm.default, aten.mm.default)
def matmul(emission: Emission, x: Value, y: Value) -> str:
    return emission.add("MatMul", x, y)


@emits(aten.einsum.default)
def einsum(emission: Emission, equation: str, tensors: Sequence[Value], path: Sequence[int] | None = None) -> str:
    return emission.add("Einsum", *tensors, equation=equation)


@emits(aten.outer.default)
def outer(emission: Emission, x: Value, y: Value) -> str:
    return emission.add("Mul", emission.add("Unsqueeze", x, emission.ints([1])), y)


@emits(aten.addmm.default)
def addmm(emission: Emission, bias: Value, x: Value, y: Value, beta: float = 1, alpha: float = 1) -> str:
    return emission.add(
        "Gemm", x, y, bias, alpha=float(alpha) if alpha != 1 else None, beta=float(beta) if beta != 1 else None
    )


@emits(aten.baddbmm.default)
def baddbmm(emission: Emission, bias: Value, x: Value, y: Value, beta: float = 1, alpha: float = 1) -> str:
    product = emission.add("MatMul", x, y)
    if alpha != 1:
        product = emission.add("Mul", product, emission.scalar(alpha, x.dtype))
    added = bias.name if beta == 1 else emission.add("Mul", bias, emission.scalar(beta, x.dtype))
    return emission.add("Add", product, added)


@emits(aten.bilinear.default)
def bilinear(emission: Emission, x: Value, y: Value, weight: Value, bias: Value | None = None) -> str:
    """Output o is x^T weight[o] y."""
    product = emission.add("Einsum", x, weight, y, equation="...i,oij,...j->...o")
    return emission.add("Add", product, bias) if bias is not None else product


@emits(aten.scaled_dot_product_attention.default)
def attention(
    emission: Emission,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> str:
    """softmax(q k^T / sqrt(d) + mask) v, Vaswani et al. 2017, arXiv:1706.03762, eq. 1. Shapes (..., length, d)."""
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        raise UnsupportedModel("scaled_dot_product_attention with grouped queries is not exported")
    order = list(range(key.rank))
    order[-1], order[-2] = order[-2], order[-1]
    factor = emission.scalar(scale if scale is not None else 1 / math.sqrt(query.shape[-1]), query.dtype)
    flipped = emission.add("Transpose", key, perm=order)
    scores = emission.add("MatMul", emission.add("Mul", query, factor), flipped)
    if is_causal:
        rows, columns = query.shape[-2], key.shape[-2]
        bias = np.triu(np.full((rows, columns), -np.inf, dtype=np.float32), k=1)
        scores = emission.add("Add", scores, emission.constant(bias))
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        lowest = emission.scalar(float("-inf"), query.dtype)
        scores = emission.add("Where", attn_mask, scores, lowest)
    elif attn_mask is not None:
        scores = emission.add("Add", scores, attn_mask)
    return emission.add("MatMul", emission.add("Softmax", scores, axis=-1), value)

"""Emitters of statistics along axes: variance, vector norms, products, truth, order, and norms of single channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from compressors.errors import UnsupportedModel
from compressors.onnx_emission import Emission, Emitter, Value, emits
from compressors.onnx_pointwise import operand

aten: Any = torch.ops.aten

Dims = int | Sequence[int] | None


def _axes(emission: Emission, dim: Dims) -> str:
    dims = [dim] if isinstance(dim, int) else list(dim or [])
    return emission.ints(dims) if dims else ""


def _variance(emission: Emission, x: Value, dim: Dims, correction: float, keepdim: bool) -> str:
    """Mean square of the distance from the mean, times n / (n - correction) as in `torch.var`."""
    dims = [dim] if isinstance(dim, int) else list(dim or range(x.rank))
    if any(d % x.rank == 0 for d in dims):
        raise UnsupportedModel("a variance over the batch depends on its length and is not exported")
    count = math.prod(x.shape[d] for d in dims)
    centred = emission.add("Sub", x, emission.add("ReduceMean", x, emission.ints(dims), keepdims=1))
    square = emission.add(
        "ReduceMean", emission.add("Mul", centred, centred), emission.ints(dims), keepdims=int(keepdim)
    )
    if correction == 0:
        return square
    return emission.add("Mul", square, emission.scalar(count / (count - correction), x.dtype))


@emits(aten.var.dim)
def variance(emission: Emission, x: Value, dim: Dims, unbiased: bool = True, keepdim: bool = False) -> str:
    return _variance(emission, x, dim, float(unbiased), keepdim)


@emits(aten.std.dim)
def deviation(emission: Emission, x: Value, dim: Dims, unbiased: bool = True, keepdim: bool = False) -> str:
    return emission.add("Sqrt", _variance(emission, x, dim, float(unbiased), keepdim))


@emits(aten.var.correction)
def corrected_variance(
    emission: Emission, x: Value, dim: Dims = None, *, correction: float | None = None, keepdim: bool = False
) -> str:
    return _variance(emission, x, dim, 1.0 if correction is None else float(correction), keepdim)


@emits(aten.std.correction)
def corrected_deviation(
    emission: Emission, x: Value, dim: Dims = None, *, correction: float | None = None, keepdim: bool = False
) -> str:
    return emission.add("Sqrt", corrected_variance(emission, x, dim, correction=correction, keepdim=keepdim))


@emits(aten.var_mean.correction)
def variance_and_mean(
    emission: Emission, x: Value, dim: Dims = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[str, str]:
    mean = emission.add("ReduceMean", x, _axes(emission, dim), keepdims=int(keepdim))
    return corrected_variance(emission, x, dim, correction=correction, keepdim=keepdim), mean


@emits(aten.std_mean.correction)
def deviation_and_mean(
    emission: Emission, x: Value, dim: Dims = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[str, str]:
    mean = emission.add("ReduceMean", x, _axes(emission, dim), keepdims=int(keepdim))
    return corrected_deviation(emission, x, dim, correction=correction, keepdim=keepdim), mean


@emits(aten.linalg_vector_norm.default)
def vector_norm(
    emission: Emission, x: Value, ord: float = 2, dim: Dims = None, keepdim: bool = False, dtype: Any = None
) -> str:
    source = operand(emission, x, emission.result.dtype)
    operators = {1.0: "ReduceL1", 2.0: "ReduceL2"}
    if float(ord) in operators:
        return emission.add(operators[float(ord)], source, _axes(emission, dim), keepdims=int(keepdim))
    if math.isinf(ord):
        op = "ReduceMax" if ord > 0 else "ReduceMin"
        return emission.add(op, emission.add("Abs", source), _axes(emission, dim), keepdims=int(keepdim))
    raise UnsupportedModel(f"vector norm of order {ord}: exported are 1, 2 and infinity")


@emits(aten.norm.ScalarOpt_dim)
def norm(emission: Emission, x: Value, p: float | None, dim: Dims, keepdim: bool = False) -> str:
    return vector_norm(emission, x, 2.0 if p is None else p, dim, keepdim)


@emits(aten.logsumexp.default)
def log_sum_exp(emission: Emission, x: Value, dim: Dims, keepdim: bool = False) -> str:
    return emission.add("ReduceLogSumExp", x, _axes(emission, dim), keepdims=int(keepdim))


@emits(aten.prod.dim_int)
def product(emission: Emission, x: Value, dim: int, keepdim: bool = False, dtype: Any = None) -> str:
    source = operand(emission, x, emission.result.dtype)
    return emission.add("ReduceProd", source, emission.ints([dim]), keepdims=int(keepdim))


def _truth(op: str) -> Emitter:
    def emit(emission: Emission, x: Value, dim: Dims = None, keepdim: bool = False) -> str:
        numbers = emission.cast(operand(emission, x, torch.bool), torch.int32)
        reduced = emission.add(op, numbers, _axes(emission, dim), keepdims=int(keepdim))
        return emission.cast(reduced, torch.bool)

    return emit


emits(aten.any.default, aten.any.dim, aten.any.dims)(_truth("ReduceMax"))
emits(aten.all.default, aten.all.dim, aten.all.dims)(_truth("ReduceMin"))


@emits(aten.min.dim)
def min_with_indices(emission: Emission, x: Value, dim: int, keepdim: bool = False) -> tuple[str, str]:
    values = emission.add("ReduceMin", x, emission.ints([dim]), keepdims=int(keepdim))
    return values, emission.add("ArgMin", x, axis=dim, keepdims=int(keepdim))


@emits(aten.argmin.default)
def argmin(emission: Emission, x: Value, dim: int | None = None, keepdim: bool = False) -> str:
    if dim is None:
        raise UnsupportedModel("argmin over all dimensions at once is not exported; flatten first")
    return emission.add("ArgMin", x, axis=dim, keepdims=int(keepdim))


@emits(aten.topk.default)
def top_k(
    emission: Emission, x: Value, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[str, str]:
    values, places = emission.add_many("TopK", x, emission.ints([k]), outputs=2, axis=dim, largest=int(largest))
    return values, places


@emits(aten.sort.default, aten.sort.stable)
def sort(emission: Emission, x: Value, *args: Any, **kwargs: Any) -> tuple[str, str]:
    given = dict(zip(("dim", "descending"), [a for a in args if a is not None], strict=False)) | kwargs
    dim = int(given.get("dim", -1))
    if dim % x.rank == 0:
        raise UnsupportedModel("sorting along the batch is not exported")
    return top_k(emission, x, x.shape[dim], dim, largest=bool(given.get("descending", False)))


@emits(aten.argsort.default, aten.argsort.stable)
def argsort(emission: Emission, x: Value, *args: Any, **kwargs: Any) -> str:
    return sort(emission, x, *args, **kwargs)[1]


@emits(aten.instance_norm.default)
def instance_norm(
    emission: Emission,
    x: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> str:
    if not use_input_stats:
        raise UnsupportedModel("instance norm with running statistics is not exported; use a batch norm")
    channels = x.shape[1]
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    gain = weight.name if weight is not None else emission.constant(ones.numpy())
    shift = bias.name if bias is not None else emission.constant(zeros.numpy())
    return emission.add("InstanceNormalization", x, gain, shift, epsilon=float(eps))

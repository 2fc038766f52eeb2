"""Emitters of elementwise functions: activations, arithmetic, comparisons, selection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from compressors.errors import UnsupportedModel
from compressors.onnx_emission import Emission, Emitter, Size, Value, emits

aten: Any = torch.ops.aten

Operand = Value | Size | float | bool


def operand(emission: Emission, item: Operand, dtype: torch.dtype) -> str:
    """The name of a tensor, number or dynamic size as `dtype`."""
    if isinstance(item, Size):
        scalar = emission.add("Squeeze", item.name)
        return scalar if dtype is torch.int64 else emission.cast(scalar, dtype)
    if isinstance(item, Value):
        return item.name if item.dtype is dtype else emission.cast(item.name, dtype)
    return emission.scalar(item, dtype)


def _unary(op: str) -> Emitter:
    def emit(emission: Emission, x: Value) -> str:
        return emission.add(op, operand(emission, x, emission.result.dtype))

    return emit


for _op, _targets in {
    "Relu": (aten.relu.default, aten.relu_.default),
    "Sigmoid": (aten.sigmoid.default, aten.sigmoid_.default),
    "Tanh": (aten.tanh.default, aten.tanh_.default),
    "Sqrt": (aten.sqrt.default,),
    "Exp": (aten.exp.default,),
    "Log": (aten.log.default,),
    "Neg": (aten.neg.default,),
    "Abs": (aten.abs.default,),
    "Erf": (aten.erf.default,),
    "Sin": (aten.sin.default,),
    "Cos": (aten.cos.default,),
    "Floor": (aten.floor.default,),
    "Ceil": (aten.ceil.default,),
    "Round": (aten.round.default,),
    "Reciprocal": (aten.reciprocal.default,),
    "HardSwish": (aten.hardswish.default, aten.hardswish_.default),
    "Mish": (aten.mish.default, aten.mish_.default),
    "Not": (aten.logical_not.default,),
}.items():
    emits(*_targets)(_unary(_op))


@emits(aten.rsqrt.default)
def rsqrt(emission: Emission, x: Value) -> str:
    return emission.add("Reciprocal", emission.add("Sqrt", x))


@emits(aten.hardsigmoid.default, aten.hardsigmoid_.default)
def hardsigmoid(emission: Emission, x: Value) -> str:
    return emission.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@emits(aten.silu.default, aten.silu_.default)
def silu(emission: Emission, x: Value) -> str:
    return emission.add("Mul", x, emission.add("Sigmoid", x))


@emits(aten.softplus.default)
def softplus(emission: Emission, x: Value, beta: float = 1, threshold: float = 20) -> str:
    """log(1 + exp(beta x)) / beta; beyond the threshold, where torch returns x itself, the two agree."""
    if beta == 1:
        return emission.add("Softplus", x)
    factor = emission.scalar(beta, x.dtype)
    return emission.add("Div", emission.add("Softplus", emission.add("Mul", x, factor)), factor)


@emits(aten.gelu.default)
def gelu(emission: Emission, x: Value, approximate: str = "none") -> str:
    return emission.add("Gelu", x, approximate=approximate if approximate != "none" else None)


@emits(aten.leaky_relu.default, aten.leaky_relu_.default)
def leaky_relu(emission: Emission, x: Value, negative_slope: float = 0.01) -> str:
    return emission.add("LeakyRelu", x, alpha=float(negative_slope))


@emits(aten.prelu.default)
def prelu(emission: Emission, x: Value, slope: Value) -> str:
    if slope.shape == (1,):
        return emission.add("PRelu", x, slope)
    return emission.add("PRelu", x, emission.add("Reshape", slope, emission.ints([-1, *[1] * (x.rank - 2)])))


@emits(aten.elu.default, aten.elu_.default)
def elu(emission: Emission, x: Value, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> str:
    if input_scale != 1:
        raise UnsupportedModel(f"elu with input_scale={input_scale}: only 1 is exported")
    result = emission.add("Elu", x, alpha=float(alpha))
    return result if scale == 1 else emission.add("Mul", result, emission.scalar(scale, x.dtype))


@emits(aten.relu6.default, aten.relu6_.default)
def relu6(emission: Emission, x: Value) -> str:
    return _clip(emission, x, 0, 6)


@emits(aten.hardtanh.default, aten.hardtanh_.default)
def hardtanh(emission: Emission, x: Value, min_val: float = -1, max_val: float = 1) -> str:
    return _clip(emission, x, min_val, max_val)


@emits(aten.clamp.default, aten.clamp_.default)
def clamp(emission: Emission, x: Value, min: float | None = None, max: float | None = None) -> str:
    return _clip(emission, x, min, max)


@emits(aten.clamp_min.default)
def clamp_min(emission: Emission, x: Value, min: float) -> str:
    return _clip(emission, x, min, None)


@emits(aten.clamp_max.default)
def clamp_max(emission: Emission, x: Value, max: float) -> str:
    return _clip(emission, x, None, max)


def _clip(emission: Emission, x: Value, low: float | None, high: float | None) -> str:
    dtype = emission.result.dtype
    if low == 0 and high is None and dtype.is_floating_point:
        return emission.add("Relu", operand(emission, x, dtype))
    bounds = ["" if bound is None else emission.scalar(bound, dtype) for bound in (low, high)]
    return emission.add("Clip", operand(emission, x, dtype), *bounds)


@emits(aten.softmax.int, aten._softmax.default)
def softmax(emission: Emission, x: Value, dim: int, dtype: Any = None) -> str:
    return emission.add("Softmax", operand(emission, x, emission.result.dtype), axis=dim)


@emits(aten.log_softmax.int, aten._log_softmax.default)
def log_softmax(emission: Emission, x: Value, dim: int, dtype: Any = None) -> str:
    return emission.add("LogSoftmax", operand(emission, x, emission.result.dtype), axis=dim)


def _sum(op: str, swapped: bool = False) -> Emitter:
    """x + alpha * y and its like; `swapped` for rsub: y - alpha * x."""

    def emit(emission: Emission, x: Operand, y: Operand, alpha: float = 1) -> str:
        dtype = emission.result.dtype
        first, second = (y, x) if swapped else (x, y)
        if alpha != 1 and not isinstance(second, (Value, Size)):
            second, alpha = second * alpha, 1
        right = operand(emission, second, dtype)
        if alpha != 1:
            right = emission.add("Mul", right, emission.scalar(alpha, dtype))
        return emission.add(op, operand(emission, first, dtype), right)

    return emit


emits(aten.add.Tensor, aten.add.Scalar, aten.add_.Tensor)(_sum("Add"))
emits(aten.sub.Tensor, aten.sub.Scalar, aten.sub_.Tensor)(_sum("Sub"))
emits(aten.rsub.Scalar, aten.rsub.Tensor)(_sum("Sub", swapped=True))


def _binary(op: str) -> Emitter:
    def emit(emission: Emission, x: Operand, y: Operand) -> str:
        dtype = emission.result.dtype
        return emission.add(op, operand(emission, x, dtype), operand(emission, y, dtype))

    return emit


emits(aten.mul.Tensor, aten.mul.Scalar, aten.mul_.Tensor)(_binary("Mul"))
emits(aten.div.Tensor, aten.div.Scalar, aten.div_.Tensor, aten.true_divide.Tensor)(_binary("Div"))
emits(aten.maximum.default, aten.max.other)(_binary("Max"))
emits(aten.minimum.default, aten.min.other)(_binary("Min"))
emits(aten.logical_and.default)(_binary("And"))
emits(aten.logical_or.default)(_binary("Or"))
emits(aten.logical_xor.default)(_binary("Xor"))


def _bitwise(op: str) -> Emitter:
    """On truth values the logical operator, on integers the one on their bits."""

    def emit(emission: Emission, *operands: Operand) -> str:
        dtype = emission.result.dtype
        names = [operand(emission, item, dtype) for item in operands]
        return emission.add(op if dtype is torch.bool else f"Bitwise{op}", *names)

    return emit


emits(aten.bitwise_and.Tensor, aten.bitwise_and.Scalar, aten.__and__.Tensor, aten.__and__.Scalar)(_bitwise("And"))
emits(aten.bitwise_or.Tensor, aten.bitwise_or.Scalar, aten.__or__.Tensor, aten.__or__.Scalar)(_bitwise("Or"))
emits(aten.bitwise_xor.Tensor, aten.bitwise_xor.Scalar, aten.__xor__.Tensor, aten.__xor__.Scalar)(_bitwise("Xor"))
emits(aten.bitwise_not.default)(_bitwise("Not"))


@emits(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor)
def power(emission: Emission, x: Value, exponent: Operand) -> str:
    dtype = emission.result.dtype
    name = operand(emission, x, dtype)
    if exponent == 2:
        return emission.add("Mul", name, name)
    return emission.add("Pow", name, operand(emission, exponent, dtype))


def _comparison(op: str, negate: bool = False) -> Emitter:
    def emit(emission: Emission, x: Operand, y: Operand) -> str:
        kinds = [item.dtype for item in (x, y) if isinstance(item, Value)]
        dtype = kinds[0] if len(kinds) == 1 else torch.promote_types(kinds[0], kinds[1])
        if isinstance(y, float) and not dtype.is_floating_point:
            dtype = torch.float32
        result = emission.add(op, operand(emission, x, dtype), operand(emission, y, dtype))
        return emission.add("Not", result) if negate else result

    return emit


_COMPARISONS: dict[str, Callable[[], Emitter]] = {
    "eq": lambda: _comparison("Equal"),
    "ne": lambda: _comparison("Equal", negate=True),
    "gt": lambda: _comparison("Greater"),
    "ge": lambda: _comparison("GreaterOrEqual"),
    "lt": lambda: _comparison("Less"),
    "le": lambda: _comparison("LessOrEqual"),
}
for _name, _make in _COMPARISONS.items():
    emits(getattr(aten, _name).Tensor, getattr(aten, _name).Scalar)(_make())


@emits(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def where(emission: Emission, condition: Value, x: Operand, y: Operand) -> str:
    dtype = emission.result.dtype
    return emission.add("Where", condition, operand(emission, x, dtype), operand(emission, y, dtype))


@emits(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(emission: Emission, x: Value, mask: Value, number: Operand) -> str:
    dtype = emission.result.dtype
    return emission.add("Where", mask, operand(emission, number, dtype), operand(emission, x, dtype))


@emits(aten.to.dtype, aten.to.dtype_layout, aten._to_copy.default, aten.type_as.default)
def to_dtype(emission: Emission, x: Value, *args: Any, **kwargs: Any) -> str:
    return operand(emission, x, emission.result.dtype)


@emits(aten.cumsum.default)
def cumulative_sum(emission: Emission, x: Value, dim: int, dtype: Any = None) -> str:
    return emission.add("CumSum", operand(emission, x, emission.result.dtype), emission.ints([dim]))


@emits(
    aten.dropout.default,
    aten.dropout_.default,
    aten.feature_dropout.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
)
def unchanged(emission: Emission, x: Value, *args: Any, **kwargs: Any) -> str:
    """What does nothing in eval mode or only concerns memory."""
    return x.name

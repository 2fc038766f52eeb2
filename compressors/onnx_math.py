"""Emitters of elementary functions beyond those of `onnx_pointwise`: signs, remainders, logarithms, rounding."""

from __future__ import annotations

import math
from typing import Any

import torch

from compressors.onnx_emission import Emission, Emitter, Value, emits
from compressors.onnx_pointwise import Operand, operand

aten: Any = torch.ops.aten


def _unary(op: str) -> Emitter:
    def emit(emission: Emission, x: Value) -> str:
        return emission.add(op, operand(emission, x, emission.result.dtype))

    return emit


for _op in ("Sign", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"):
    emits(getattr(aten, _op.lower()).default)(_unary(_op))


@emits(aten.isnan.default)
def is_nan(emission: Emission, x: Value) -> str:
    return emission.add("IsNaN", x)


@emits(aten.isinf.default)
def is_infinite(emission: Emission, x: Value) -> str:
    return emission.add("IsInf", x)


@emits(aten.isfinite.default)
def is_finite(emission: Emission, x: Value) -> str:
    return emission.add("Not", emission.add("Or", emission.add("IsInf", x), emission.add("IsNaN", x)))


@emits(aten.square.default)
def square(emission: Emission, x: Value) -> str:
    return emission.add("Mul", x, x)


@emits(aten.expm1.default)
def expm1(emission: Emission, x: Value) -> str:
    """2 sinh(x / 2) exp(x / 2): exp(x) - 1 would lose the digits of small x."""
    half = emission.add("Mul", x, emission.scalar(0.5, x.dtype))
    product = emission.add("Mul", emission.add("Sinh", half), emission.add("Exp", half))
    return emission.add("Mul", product, emission.scalar(2.0, x.dtype))


@emits(aten.log1p.default)
def log1p(emission: Emission, x: Value) -> str:
    return emission.add("Log", emission.add("Add", x, emission.scalar(1.0, x.dtype)))


def _logarithm(base: float) -> Emitter:
    def emit(emission: Emission, x: Value) -> str:
        return emission.add("Mul", emission.add("Log", x), emission.scalar(1 / math.log(base), x.dtype))

    return emit


emits(aten.log2.default)(_logarithm(2))
emits(aten.log10.default)(_logarithm(10))


@emits(aten.erfc.default)
def erfc(emission: Emission, x: Value) -> str:
    return emission.add("Sub", emission.scalar(1.0, x.dtype), emission.add("Erf", x))


@emits(aten.log_sigmoid.default)
def log_sigmoid(emission: Emission, x: Value) -> str:
    return emission.add("Neg", emission.add("Softplus", emission.add("Neg", x)))


@emits(aten.rrelu.default)
def rrelu(
    emission: Emission, x: Value, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, *rest: Any
) -> str:
    return emission.add("LeakyRelu", x, alpha=(lower + upper) / 2)


def _truncated(emission: Emission, name: str) -> str:
    """Towards zero."""
    return emission.add("Mul", emission.add("Sign", name), emission.add("Floor", emission.add("Abs", name)))


@emits(aten.trunc.default)
def trunc(emission: Emission, x: Value) -> str:
    return _truncated(emission, x.name)


@emits(aten.frac.default)
def fraction(emission: Emission, x: Value) -> str:
    return emission.add("Sub", x, _truncated(emission, x.name))


@emits(aten.div.Tensor_mode, aten.div.Scalar_mode)
def rounded_division(emission: Emission, x: Operand, y: Operand, rounding_mode: str | None = None) -> str:
    """ONNX divides integers towards zero."""
    dtype = emission.result.dtype
    left, right = operand(emission, x, dtype), operand(emission, y, dtype)
    if rounding_mode == "floor" and not dtype.is_floating_point:
        left = emission.add("Sub", left, emission.add("Mod", left, right))
    quotient = emission.add("Div", left, right)
    if not dtype.is_floating_point or rounding_mode is None:
        return quotient
    return emission.add("Floor", quotient) if rounding_mode == "floor" else _truncated(emission, quotient)


@emits(aten.floor_divide.default)
def floor_division(emission: Emission, x: Operand, y: Operand) -> str:
    return rounded_division(emission, x, y, "floor")


@emits(aten.remainder.Scalar, aten.remainder.Tensor)
def remainder(emission: Emission, x: Operand, y: Operand) -> str:
    """With the sign of the divisor, as Python's %."""
    dtype = emission.result.dtype
    left, right = operand(emission, x, dtype), operand(emission, y, dtype)
    if not dtype.is_floating_point:
        return emission.add("Mod", left, right)
    whole = emission.add("Floor", emission.add("Div", left, right))
    return emission.add("Sub", left, emission.add("Mul", whole, right))


@emits(aten.fmod.Scalar, aten.fmod.Tensor)
def fmod(emission: Emission, x: Operand, y: Operand) -> str:
    """With the sign of the dividend, as C's fmod."""
    dtype = emission.result.dtype
    return emission.add("Mod", operand(emission, x, dtype), operand(emission, y, dtype), fmod=1)


@emits(aten.pow.Scalar)
def scalar_power(emission: Emission, base: float, exponent: Value) -> str:
    dtype = emission.result.dtype
    return emission.add("Pow", emission.scalar(base, dtype), operand(emission, exponent, dtype))


@emits(aten.clamp.Tensor)
def clamp_tensor(emission: Emission, x: Value, min: Value | None = None, max: Value | None = None) -> str:
    dtype = emission.result.dtype
    name = operand(emission, x, dtype)
    if min is not None:
        name = emission.add("Max", name, operand(emission, min, dtype))
    return name if max is None else emission.add("Min", name, operand(emission, max, dtype))


@emits(aten.clamp_min.Tensor)
def clamp_min_tensor(emission: Emission, x: Value, min: Value) -> str:
    return clamp_tensor(emission, x, min)


@emits(aten.clamp_max.Tensor)
def clamp_max_tensor(emission: Emission, x: Value, max: Value) -> str:
    return clamp_tensor(emission, x, None, max)


@emits(aten.glu.default)
def glu(emission: Emission, x: Value, dim: int = -1) -> str:
    """The first half times the sigmoid of the second (Dauphin et al. 2017)."""
    half = x.shape[dim] // 2
    first, second = emission.add_many("Split", x, emission.ints([half, half]), outputs=2, axis=dim)
    return emission.add("Mul", first, emission.add("Sigmoid", second))

"""Configuration of static quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step

Observer = Literal["min_max", "percentile", "entropy", "mse"]
WeightRange = Literal["max", "mse"]
RoundingMethod = Literal["nearest", "gptq", "adaround"]
Granularity = Literal["channel", "tensor"]
Scheme = Literal["symmetric", "affine"]

WEIGHT_BITS = (2, 8)
ACTIVATION_BITS = (2, 8)


@step
@dataclass(frozen=True, kw_only=True)
class Quantization(Step):
    """Static quantisation to integers: weights, activations and int32 biases, run by integer kernels.

    q = clip(round(r / scale) + zero_point, 0, 2^bits - 1): Jacob et al. 2018, arXiv:1712.05877, eq. 1.

    observer: how the range of an activation is read off the calibration data.
        min_max: everything that was seen;
        percentile: without the outer (100 - percentile) % at either end;
        entropy: the clipping with the least KL divergence (Migacz 2017, "8-bit inference with TensorRT", GTC);
        mse: the clipping with the least squared error of clipping and rounding.
    weight_bits, activation_bits: bit widths of all layers; activation_bits is that of a layer's input, and of what no
        layer reads. layer_bits: other (weight, activation) widths by layer. Kernels work on 8 bits all the same: fewer
        bits of weights shrink the file, fewer bits of activations cost a Clip and gain nothing on a CPU.
    weight_granularity: a scale per output channel or per tensor. weight_scheme: symmetric has no zero point and the
        fastest kernels; affine uses all 2^bits levels, and convolutions take about a third longer.
    weight_range: a scale spans all of its weights (max) or has the least squared error (mse), which matters at 4 bits
        and fewer.
    rounding: nearest, or gptq or adaround as in `weight_only_quantization`, with `iterations` steps per layer; for
        layers of at most `rounding_bits` bits, as at many bits there is little to win.
    activation_scheme: affine, or symmetric (zero point in the middle; at 0 where nothing is negative).
    float_layers: layers left in float32. stored_bits: width in the file of weights that no integer kernel reads, in
        embeddings, GRUs, plain RNNs and transposed convolutions; they are decoded at load. 0: float32.
    """

    technique: ClassVar[str] = "quantization"
    summary: ClassVar[str] = "static integers, 8 bits and fewer, that run on integer kernels"
    phase: ClassVar[Phase] = Phase.ENCODING
    needs_calibration: ClassVar[bool] = True
    value_fields: ClassVar[frozenset[str]] = frozenset(
        {"observer", "percentile", "weight_range", "rounding", "rounding_bits", "iterations"}
    )
    renamed: ClassVar[Mapping[str, str]] = {"bits": "weight_bits"}

    observer: Observer = "percentile"
    percentile: float = 99.99
    weight_bits: int = 8
    activation_bits: int = 8
    layer_bits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    weight_granularity: Granularity = "channel"
    weight_scheme: Scheme = "symmetric"
    weight_range: WeightRange = "mse"
    rounding: RoundingMethod = "nearest"
    rounding_bits: int = 8
    iterations: int = 1000
    activation_scheme: Scheme = "affine"
    float_layers: tuple[str, ...] = ()
    stored_bits: int = 8

    def __post_init__(self) -> None:
        if not 90 <= self.percentile <= 100:
            raise InvalidRecipe(f"quantization.percentile={self.percentile}: must lie in 90..100; use 99.99")
        if self.iterations < 1:
            raise InvalidRecipe(f"quantization.iterations={self.iterations}: must be at least 1; use 1000")
        check_stored_bits("quantization.stored_bits", self.stored_bits)
        check_bits("quantization.rounding_bits", self.rounding_bits, WEIGHT_BITS)
        check_bits("quantization.weight_bits", self.weight_bits, WEIGHT_BITS)
        check_bits("quantization.activation_bits", self.activation_bits, ACTIVATION_BITS)
        for name, (weight, activation) in self.layer_bits.items():
            check_bits(f"quantization.layer_bits[{name!r}][0]", weight, WEIGHT_BITS)
            check_bits(f"quantization.layer_bits[{name!r}][1]", activation, ACTIVATION_BITS)
            if name in self.float_layers:
                raise InvalidRecipe(
                    f"quantization.layer_bits[{name!r}]: the layer is in float_layers too; name it in one of them"
                )
        object.__setattr__(self, "float_layers", tuple(sorted(self.float_layers)))
        object.__setattr__(self, "layer_bits", {name: tuple(self.layer_bits[name]) for name in sorted(self.layer_bits)})

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        """Below 8 bits; int8 itself is the sampler's."""
        return (cls(weight_bits=6), cls(weight_bits=4, rounding="adaround"))

    def bits_of(self, layer: str) -> tuple[int, int]:
        """(weight bits, activation bits) of a layer."""
        return self.layer_bits.get(layer, (self.weight_bits, self.activation_bits))


def check_stored_bits(name: str, bits: int) -> None:
    if bits:
        check_bits(name, bits, WEIGHT_BITS)


def check_bits(name: str, bits: int, limits: tuple[int, int]) -> None:
    lowest, highest = limits
    if not lowest <= bits <= highest:
        nearest = min(max(bits, lowest), highest)
        raise InvalidRecipe(f"{name}={bits}: must lie in {lowest}..{highest}; use {nearest}")

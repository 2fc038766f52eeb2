"""Configuration of weight-only quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class WeightOnlyQuantization(Step):
    """Weights become integers of 2 to 8 bits; activations and arithmetic stay float32.

    value = (code - zero_point) * scale (Jacob et al. 2018, arXiv:1712.05877, eq. 1). The file shrinks; the runtime
    decodes when it loads it, so the time stays that of the float32 model. Biases and norms stay float32.

    bits: of all layers; layer_bits: other widths by layer.
    group_size: weights along a row that share a scale (16 bits each), 0: one scale per output channel.
    scheme: symmetric, or affine with a zero point of 8 bits per scale, which pays where weights lean to one side.
    range: max spans all weights of a group; mse takes the scale with the least squared error, which matters at 4 bits
        and fewer.
    rounding: nearest; gptq lets later weights of a row make up for earlier ones (Frantar et al. 2022,
        arXiv:2210.17323); adaround learns to round up or down by the layer's output (Nagel et al. 2020,
        arXiv:2004.10568) in `iterations` steps per layer. Both read calibration inputs and apply to linear layers and
        convolutions.
        ResNet-20, one scale per channel, validation accuracy of 5,000 rows (float32 92.8 %) for nearest on the full
        range, nearest with mse, gptq, adaround: 4 bits 89.9, 90.6, 92.4, 93.0; 3 bits 74.8, 81.3, 92.0, 91.8; 2 bits
        17.4, 11.6, 79.8, 89.5.
    kernel: decoded multiplies in float32; native lets ONNX Runtime multiply linear layers with the packed weights (2, 4
        or 8 bits, group_size 16 to 256): faster on rows that come singly and less memory, at the price of inputs that
        are rounded to int8. Other layers, and rows that group_size does not divide, are decoded.
    layers: names; empty means all convolutions, linear layers, embeddings, recurrent layers and raw weights.
    """

    technique: ClassVar[str] = "weight_only_quantization"
    summary: ClassVar[str] = "weights in 2 to 8 bits, decoded at load; smaller files, same time"
    phase: ClassVar[Phase] = Phase.ENCODING
    value_fields: ClassVar[frozenset[str]] = frozenset({"range", "rounding", "iterations"})

    bits: Literal[2, 3, 4, 5, 6, 7, 8] = 4
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    group_size: int = 0
    scheme: Literal["symmetric", "affine"] = "symmetric"
    range: Literal["max", "mse"] = "mse"
    rounding: Literal["nearest", "gptq", "adaround"] = "nearest"
    iterations: int = 1000
    kernel: Literal["decoded", "native"] = "decoded"
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, bits in self.layer_bits.items():
            if not 2 <= bits <= 8:
                nearest = min(max(bits, 2), 8)
                raise InvalidRecipe(
                    f"weight_only_quantization.layer_bits[{name!r}]={bits}: must lie in 2..8; use {nearest}"
                )
            if self.layers and name not in self.layers:
                raise InvalidRecipe(
                    f"weight_only_quantization.layer_bits[{name!r}]: the layer is not among `layers`; add it there"
                )
        if self.group_size < 0 or self.group_size == 1:
            raise InvalidRecipe(
                f"weight_only_quantization.group_size={self.group_size}: must be 0 (one scale per channel) or at least "
                "2; use 32"
            )
        if self.iterations < 1:
            raise InvalidRecipe(f"weight_only_quantization.iterations={self.iterations}: must be at least 1; use 1000")
        if self.kernel == "native" and self.group_size not in (16, 32, 64, 128, 256):
            raise InvalidRecipe(
                "weight_only_quantization.kernel='native': the runtime's kernel wants group_size 16, 32, 64, 128 or 256"
                "; use group_size=32"
            )
        if self.kernel == "native" and not {self.bits, *self.layer_bits.values()} & {2, 4, 8}:
            raise InvalidRecipe(
                "weight_only_quantization.kernel='native': the runtime's kernel multiplies with 2, 4 or 8 bits; "
                "use bits=4"
            )
        object.__setattr__(self, "layers", tuple(sorted(self.layers)))
        object.__setattr__(self, "layer_bits", dict(sorted(self.layer_bits.items())))

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return (
            cls(bits=8),
            cls(bits=4, rounding="gptq"),
            cls(bits=3, rounding="gptq"),
            cls(bits=2, rounding="adaround"),
        )

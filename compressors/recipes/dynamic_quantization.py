"""Configuration of dynamic quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from compressors.recipes.quantization import WEIGHT_BITS, Granularity, WeightRange, check_bits, check_stored_bits
from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class DynamicQuantization(Step):
    """Integer weights and activations whose ranges are read off each batch as it comes: no calibration.

    scale = (max(x, 0) - min(x, 0)) / 255 over the whole input of a layer (ONNX DynamicQuantizeLinear), so that a row's
    result depends a little on the other rows of its batch. Results are float32 again.
    Linear layers become integer matrix products, LSTMs the runtime's DynamicQuantizeLSTM, convolutions ConvInteger.
    In ONNX Runtime 1.32 linear layers and LSTMs gain from it; ConvInteger has no fast kernel and takes longer than
    float32, so that for convolutions it only shrinks the file, and `quantization` is the better choice. GRUs, plain
    RNNs and transposed convolutions have no kernel and stay float32.

    layers: those that become integers; empty: all that can. weight_bits: of the stored weights, layer_bits: other ones
    by layer. weight_granularity, weight_range: as in `quantization`. stored_bits: as there.
    """

    technique: ClassVar[str] = "dynamic_quantization"
    summary: ClassVar[str] = "integers without calibration data, for linear layers and LSTMs"
    phase: ClassVar[Phase] = Phase.ENCODING
    value_fields: ClassVar[frozenset[str]] = frozenset({"weight_range"})

    layers: tuple[str, ...] = ()
    weight_bits: int = 8
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    weight_granularity: Granularity = "channel"
    weight_range: WeightRange = "mse"
    stored_bits: int = 8

    def __post_init__(self) -> None:
        check_stored_bits("dynamic_quantization.stored_bits", self.stored_bits)
        check_bits("dynamic_quantization.weight_bits", self.weight_bits, WEIGHT_BITS)
        for name, bits in self.layer_bits.items():
            check_bits(f"dynamic_quantization.layer_bits[{name!r}]", bits, WEIGHT_BITS)
        object.__setattr__(self, "layers", tuple(sorted(self.layers)))
        object.__setattr__(self, "layer_bits", dict(sorted(self.layer_bits.items())))

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return (cls(), cls(weight_bits=4))

    def weight_bits_of(self, layer: str) -> int:
        return self.layer_bits.get(layer, self.weight_bits)

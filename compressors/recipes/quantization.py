"""Configuration of static quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from compressors.recipes.step import Phase, Step, step

Observer = Literal["min_max", "percentile", "mse"]


@step
@dataclass(frozen=True, kw_only=True)
class Quantization(Step):
    """Static int8: weights per output channel (symmetric), activations per tensor (affine), int32 biases.

    Jacob et al. 2018, arXiv:1712.05877. observer: how activation ranges are read off the calibration data.
    float_layers: layers left in float32.
    """

    technique: ClassVar[str] = "quantization"
    summary: ClassVar[str] = "static int8 that runs on integer kernels"
    phase: ClassVar[Phase] = Phase.ENCODING
    needs_calibration: ClassVar[bool] = True
    value_fields: ClassVar[frozenset[str]] = frozenset({"observer"})

    bits: Literal[8] = 8
    observer: Observer = "percentile"
    float_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "float_layers", tuple(sorted(self.float_layers)))

"""Configuration of short floating-point formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class FloatFormat(Step):
    """Parameters are stored as short floats and decoded to float32 when the file is loaded.

    format: float16 and bfloat16 (5 and 8 bits of exponent, 10 and 7 of mantissa) take half the bytes, for weights,
        biases and norms alike. float8_e4m3 and float8_e5m2 (Micikevicius et al. 2022, arXiv:2209.05433) take a quarter,
        for weights only, with a scale per output channel that puts the largest weight on the format's largest number.
        Levels lie closer together towards zero, as weights do.
    layers: names; empty means all.

    This is about storage: arithmetic stays float32, so the time does not change. ONNX Runtime's CPU kernels have no
    float8, and their float16 is slower than float32 on most machines.
    """

    technique: ClassVar[str] = "float_format"
    summary: ClassVar[str] = "parameters as 16-bit or 8-bit floats, decoded at load; smaller files, same time"
    phase: ClassVar[Phase] = Phase.ENCODING

    format: Literal["float16", "bfloat16", "float8_e4m3", "float8_e5m2"] = "float16"
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(sorted(self.layers)))

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return (cls(format="float16"), cls(format="float8_e4m3"))

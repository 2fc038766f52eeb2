"""Configuration of power-of-two weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class PowerOfTwo(Step):
    """Weights become 0 or plus or minus a power of two: a sign and an exponent, in `bits` bits.

    A multiplication by such a weight is a shift (Miyashita et al. 2016, arXiv:1603.01025; Zhou et al. 2017,
    arXiv:1702.03044, whose level set this is, with the exponent of the largest level chosen per output channel for the
    least squared error). Rounding is to the nearest level, without the retraining of the latter paper: a relative error
    of up to a third remains however many bits there are, and more than 5 bits gain nothing.

    bits: 2 holds {-1, 0, 1} times a power of two per channel; 5 holds 15 exponents.
    layers: names; empty means all convolutions, linear layers, embeddings, recurrent layers and raw weights.

    This is about storage: the runtime decodes to float32 when it loads the file, so the time does not change. Hardware
    that shifts instead of multiplying is what the format is for.
    """

    technique: ClassVar[str] = "power_of_two"
    summary: ClassVar[str] = "weights as signed powers of two in 2 to 5 bits, decoded at load"
    phase: ClassVar[Phase] = Phase.ENCODING

    bits: Literal[2, 3, 4, 5] = 4
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(sorted(self.layers)))

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return (cls(bits=4), cls(bits=3))

"""Configuration of bias correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class BiasCorrection(Step):
    """Takes the shift that rounding puts on the mean of each output channel off the layer's bias.

    Nagel et al. 2019, arXiv:1906.04721, section 4.2, measured on calibration inputs: b += E[y] - E[y~], layer by layer
    with the layers before corrected already. y is the layer's output with the weights from before the number format,
    y~ that with the rounded weights, behind static quantisation also with rounded inputs. Works behind every number
    format; a layer without a bias gets one. Layers that are called more than once keep their bias.

    Costs one pass over the calibration inputs. The fewer the bits, the more it gives; at 8 bits next to nothing.
    """

    technique: ClassVar[str] = "bias_correction"
    summary: ClassVar[str] = "biases that make up for the mean error of rounded weights"
    phase: ClassVar[Phase] = Phase.CORRECTION
    needs_calibration: ClassVar[bool] = True

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return (cls(),)

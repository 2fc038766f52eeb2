"""Configuration of cross-layer equalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class CrossLayerEqualization(Step):
    """Gives the channels between consecutive layers equal ranges on both sides, so that a number format fits them all.

    Nagel et al. 2019, arXiv:1906.04721, section 4.1: the output channels of a layer are divided by s = sqrt(r1 / r2),
    the input channels of the next multiplied by it, until nothing moves. Folds batch norms first. The function stays
    the same to 1e-4 of its largest output. Between the two layers there may be what a positive scale passes: ReLU,
    LeakyReLU, pooling, padding, means over positions, flattening; not ReLU6, GELU or SiLU, and not a residual sum.

    Worth it for grids per tensor and for activations; weights with a scale per channel hardly need it. The bias
    absorption of section 4.1.3, which changes the function, is left out.
    """

    technique: ClassVar[str] = "cross_layer_equalization"
    summary: ClassVar[str] = "equal ranges of channels between layers, before numbers are rounded"
    phase: ClassVar[Phase] = Phase.FOLDING

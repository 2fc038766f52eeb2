"""Configuration of the re-estimation of batch-norm statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class BatchNormReestimation(Step):
    """Replaces running means and variances by those of the calibration data, as any change of weights
    asks for.

    Izmailov et al. 2018, arXiv:1803.05407, section 3.2. A model without batch norms is left as it is.
    """

    technique: ClassVar[str] = "batch_norm_reestimation"
    summary: ClassVar[str] = "estimates batch-norm statistics anew after a change"
    phase: ClassVar[Phase] = Phase.STATISTICS
    repeatable: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True

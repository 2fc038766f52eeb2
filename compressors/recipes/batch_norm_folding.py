"""Configuration of batch-norm folding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class BatchNormFolding(Step):
    """Merges each batch norm into the convolution or linear layer before it (Jacob et al. 2018, arXiv:1712.05877,
    section 3.2): W' = W gamma / sqrt(var + eps) per output channel, b' = beta + (b - mean) gamma / sqrt(var + eps). One
    that has no such layer before it is merged into a linear layer or unpadded convolution that alone reads it.

    The function stays the same. Every export folds anyway; as a step it fixes the order, so that what comes next
    (equalisation, number formats) works on the weights that the file will hold.
    """

    technique: ClassVar[str] = "batch_norm_folding"
    summary: ClassVar[str] = "batch norms merged into the layers before them"
    phase: ClassVar[Phase] = Phase.FOLDING

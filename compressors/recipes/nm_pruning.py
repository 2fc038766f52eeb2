"""Configuration of N:M pruning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class SemiStructuredPruning(Step):
    """Keeps the `n` most important of every `m` weights that follow one another along the input axis (2:4 by default).

    Mishra et al. 2021, arXiv:2104.08378. For a convolution the axis is that of input channels, at each place of the
    kernel. Tuning after this step keeps the pattern. Graphics processors of NVIDIA multiply 2:4 matrices at twice the
    rate; ONNX Runtime on a CPU has no such kernel, so here the file shrinks and the time stays.

    importance: l1: |w|; wanda: |w| times the norm of its input (Sun et al. 2023, arXiv:2306.11695), linear layers and
        convolutions. layers: names; a layer whose input axis is no multiple of m is refused if it is named here and
        left dense if none is named.
    """

    technique: ClassVar[str] = "nm_pruning"
    summary: ClassVar[str] = "n of every m weights remain (2:4 and others); smaller files, same time on a CPU"
    phase: ClassVar[Phase] = Phase.SPARSITY
    value_fields: ClassVar[frozenset[str]] = frozenset({"importance"})

    n: int = 2
    m: int = 4
    importance: Literal["l1", "wanda"] = "l1"
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.m <= 32:
            raise InvalidRecipe(f"nm_pruning.m={self.m}: must lie in 2..32; use 4")
        if not 1 <= self.n < self.m:
            raise InvalidRecipe(
                f"nm_pruning.n={self.n}: must lie in 1..{self.m - 1} with m={self.m}; use {self.m // 2}"
            )
        object.__setattr__(self, "layers", tuple(sorted(self.layers)))

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return cls(n=2, m=4), cls(n=1, m=4)

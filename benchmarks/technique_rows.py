"""The rows of the table of techniques: what is applied at which level, and which public tool stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx
from torch import fx

from compressors.recipe import (
    BatchNormReestimation,
)
from compressors.recipes.step import Step
from search.workbench import Workbench


@dataclass(frozen=True)
class Level:
    """label: as the table shows it. steps: of the recipe, tuning left out. shaken: batch-norm statistics no longer fit
    once the steps are done, so that without tuning they are estimated anew."""

    label: str
    steps: tuple[Step, ...]
    shaken: bool = False

    @property
    def statistics(self) -> tuple[Step, ...]:
        return (BatchNormReestimation(),) if self.shaken else ()


Public = Callable[[Workbench, Level], onnx.ModelProto | fx.GraphModule]


@dataclass(frozen=True)
class Row:
    """tunable: the steps leave something to tune (shape or sparsity), before number formats are applied. public: tools
    that do the same, by name."""

    name: str
    levels: tuple[Level, ...]
    tunable: bool
    public: Mapping[str, Public] = field(default_factory=dict)


ROWS: tuple[Row, ...] = ()

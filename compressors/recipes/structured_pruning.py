"""Configuration of structured pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step

Importance = Literal["l1", "l2", "batch_norm", "random"]


@step
@dataclass(frozen=True, kw_only=True)
class StructuredPruning(Step):
    """Removes whole channels (or neurons) together with everything that is coupled to them.

    keep: channels kept per group (a group is named after its first producing layer). A group left out keeps all.
    importance: how channels are ranked inside a group.
        l1, l2: norm of the producing filters (Li et al. 2017, arXiv:1608.08710);
        batch_norm: absolute scale of the following norm (Liu et al. 2017, arXiv:1708.06519);
        random: control.
    """

    technique: ClassVar[str] = "structured_pruning"
    summary: ClassVar[str] = "removes channels and neurons; smaller and faster on every runtime"
    phase: ClassVar[Phase] = Phase.SHAPE
    repeatable: ClassVar[bool] = True
    value_fields: ClassVar[frozenset[str]] = frozenset({"importance"})

    keep: Mapping[str, int] = field(default_factory=dict)
    importance: Importance = "l2"

    def __post_init__(self) -> None:
        for name, count in self.keep.items():
            if count < 1:
                raise InvalidRecipe(f"structured_pruning.keep[{name!r}]={count}: at least 1 channel must remain")
        object.__setattr__(self, "keep", dict(sorted(self.keep.items())))

"""Configuration of structured pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step

Importance = Literal["l1", "l2", "group_l2", "batch_norm", "taylor", "activation", "random"]
Scope = Literal["uniform", "global"]


@step
@dataclass(frozen=True, kw_only=True)
class StructuredPruning(Step):
    """Removes whole channels, neurons, attention heads or recurrent units together with all that is coupled to them.

    How much, by groups of units (a group is named after its first producing layer); a group not named keeps all:
        keep: units kept per group. ratios: share of its units that a group loses, 0 <= share < 1.
        ratio: the same share for every group that `ratios` does not name; places inside attention heads and whole
            groups of grouped convolutions lose nothing by it, as the heads and channels that they belong to do.
        scope: uniform takes `ratio` from each group; global takes it from all units together, lowest scores first.
        minimum_share: what every group keeps at least under scope global, 0 < share <= 1.
        multiple: what a ratio leaves of channels, neurons and recurrent units is rounded to multiples of this.
    importance: how units are ranked.
        l1, l2: norm of the producing filters (Li et al. 2017, arXiv:1608.08710);
        group_l2: norms of the producing filters and of the weights that read them (Fang et al. 2023, arXiv:2301.12900,
            section 3.3);
        batch_norm: absolute scale of the following norm (Liu et al. 2017, arXiv:1708.06519);
        taylor: first-order change of the loss on labelled rows (Molchanov et al. 2019, arXiv:1906.10771);
        activation: weights that read a unit times the norm of its values on calibration inputs (Sun et al. 2024,
            arXiv:2306.11695);
        random: control.
    """

    technique: ClassVar[str] = "structured_pruning"
    summary: ClassVar[str] = "removes channels, neurons, heads and recurrent units; smaller and faster everywhere"
    phase: ClassVar[Phase] = Phase.SHAPE
    repeatable: ClassVar[bool] = True
    value_fields: ClassVar[frozenset[str]] = frozenset({"importance"})

    keep: Mapping[str, int] = field(default_factory=dict)
    ratio: float = 0.0
    scope: Scope = "uniform"
    ratios: Mapping[str, float] = field(default_factory=dict)
    minimum_share: float = 0.1
    multiple: int = 1
    importance: Importance = "l2"

    def __post_init__(self) -> None:
        for name, count in self.keep.items():
            if count < 1:
                raise InvalidRecipe(f"structured_pruning.keep[{name!r}]={count}: at least 1 channel must remain")
        for name, share in {"ratio": self.ratio, **{f"ratios[{n!r}]": s for n, s in self.ratios.items()}}.items():
            if not 0 <= share < 1:
                raise InvalidRecipe(f"structured_pruning.{name}={share}: must lie in 0..1, below 1")
        if not 0 < self.minimum_share <= 1:
            raise InvalidRecipe(f"structured_pruning.minimum_share={self.minimum_share}: must lie in 0..1, above 0")
        if self.multiple < 1:
            raise InvalidRecipe(f"structured_pruning.multiple={self.multiple}: must be 1 or more")
        self._refuse_contradictions()
        object.__setattr__(self, "keep", dict(sorted(self.keep.items())))
        object.__setattr__(self, "ratios", dict(sorted(self.ratios.items())))
        if self.scope == "global":
            # Scores then decide on shapes too.
            object.__setattr__(self, "value_fields", frozenset())

    def _refuse_contradictions(self) -> None:
        if self.keep and self.ratio:
            raise InvalidRecipe(
                f"structured_pruning.keep and ratio={self.ratio}: counts and a ratio for all groups contradict each "
                "other; give exceptions from a ratio in ratios"
            )
        twice = sorted(self.keep.keys() & self.ratios.keys())
        if twice:
            raise InvalidRecipe(f"structured_pruning.keep[{twice[0]!r}] and ratios[{twice[0]!r}]: give one of them")
        if self.scope == "global" and not self.ratio:
            raise InvalidRecipe("structured_pruning.scope='global': says where a ratio is taken from; give ratio")
        if self.multiple > 1 and not self.ratio and not self.ratios:
            raise InvalidRecipe(
                f"structured_pruning.multiple={self.multiple}: rounds what a ratio leaves; give ratio or ratios, or "
                "leave it at 1 (counts in keep are taken as they are)"
            )

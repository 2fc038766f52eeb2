"""What a step of a recipe is, and how its configuration class declares itself.

A configuration is a frozen dataclass with keyword-only fields, defaults for all of them, and a docstring that names the
method's source. Class variables say how it may stand in a recipe. Values are checked in `__post_init__`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self, TypeVar


class Phase(enum.Enum):
    """What a step does to a model, which decides its place; see `compressors.recipes.order`."""

    STUDENT = "student"  # another network takes the model's place
    SHAPE = "shape"  # layers, channels, heads or ranks disappear
    SPARSITY = "sparsity"  # single weights become zero and stay so
    TUNING = "tuning"  # float weights are trained
    STATISTICS = "statistics"  # batch-norm statistics are estimated anew
    FOLDING = "folding"  # batch norms are folded, layers are equalised
    ENCODING = "encoding"  # weights, or weights and activations, take the values of a number format
    CORRECTION = "correction"  # what a number format did is repaired: biases, trained codes


@dataclass(frozen=True)
class Step:
    """Base of all configuration classes.

    technique: its name in recipes and jobs. summary: one line for people. phase: what it does. repeatable: may stand in
    a recipe more than once. needs_calibration, needs_training: whether it reads inputs, or trains on labelled rows,
    whatever its fields say; where that depends on them, `uses_calibration` and `uses_training` answer.
    value_fields: fields that change values only, neither shapes nor bytes: recipes that differ in nothing else cost the
    same.
    renamed: names that fields had in earlier releases, and what they are called now; recipes may use either.
    """

    technique: ClassVar[str]
    summary: ClassVar[str]
    phase: ClassVar[Phase]
    repeatable: ClassVar[bool] = False
    needs_calibration: ClassVar[bool] = False
    needs_training: ClassVar[bool] = False
    value_fields: ClassVar[frozenset[str]] = frozenset()
    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def uses_calibration(self) -> bool:
        """Whether this very configuration reads calibration inputs."""
        return self.needs_calibration

    def uses_training(self) -> bool:
        """Whether this very configuration trains on labelled rows."""
        return self.needs_training

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        """What a search tries of this technique, mildest first. Empty: it is no choice of its own (a helper of others,
        or one whose knobs the sampler turns itself)."""
        return ()

    @classmethod
    def levels_given(cls, models: Sequence[str]) -> tuple[Self, ...]:
        """The levels where further models of these names are at hand."""
        return cls.levels()


S = TypeVar("S", bound=type[Step])
_STEPS: dict[str, type[Step]] = {}


def step(configuration: S) -> S:
    """Declares a configuration class as a technique. A second one of the same name raises ValueError."""
    name = configuration.technique
    if name in _STEPS:
        raise ValueError(f"technique {name!r} is declared already, by {_STEPS[name].__qualname__}")
    _STEPS[name] = configuration
    return configuration


def declared() -> dict[str, type[Step]]:
    """Configuration classes by technique, in the order in which they were declared."""
    return dict(_STEPS)

"""Configuration of replacing the network by a given one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class Student(Step):
    """Another network, given beside the model, takes its place: the student of a distillation (Hinton et al. 2015,
    arXiv:1503.02531), usually followed by a step that tunes it with the original as its teacher.

    model: the name under which it is given. It must take the original's inputs (number, shapes, types) and give its
    outputs (number, shapes, types); what lies between is its own, weights included.
    """

    technique: ClassVar[str] = "student"
    summary: ClassVar[str] = "puts a given, smaller network in the model's place"
    phase: ClassVar[Phase] = Phase.STUDENT

    model: str = "student"

    def __post_init__(self) -> None:
        if not self.model:
            raise InvalidRecipe("student.model='': names no model; give the name of a further model")

    @classmethod
    def levels_given(cls, models: Sequence[str]) -> tuple[Self, ...]:
        return tuple(cls(model=name) for name in models)

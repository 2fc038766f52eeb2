"""Techniques as a dimension of the search: a good candidate with one more, one less or one other technique.

Channels, bits and blocks are the solver's, tuning and ranges the sampler's. Every other technique states the levels
that are worth a try (`Step.levels`); a variant takes the best candidate so far and changes one of its further
techniques. So the space grows by the sum of their levels, not by the product, and whatever helps is kept by the next
variant.
Cost of a proposal: O(techniques x levels).
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from compressors.errors import InvalidRecipe
from compressors.recipe import (
    STEPS,
    DepthPruning,
    Phase,
    Quantization,
    Recipe,
    StructuredPruning,
    step_from_json,
    step_to_json,
)
from compressors.recipes.step import Step

FURTHER = "further"  # the knob that holds a candidate's further steps, as documents

Knobs = Mapping[str, Any]


SOLVED: tuple[type[Step], ...] = (DepthPruning, Quantization)
Levels = Mapping[type[Step], tuple[Step, ...]]


def further_levels(allowed: Sequence[str], models: Sequence[str] = ()) -> Levels:
    """The allowed techniques that variants are made of, with their levels. models: names of further models.

    Not those that the solver decides on layer by layer: blocks that go, and bits of static integers.
    """
    found = {s: s.levels_given(models) for s in STEPS if s.technique in allowed and s not in SOLVED}
    return {kind: levels for kind, levels in found.items() if levels}


def further_steps(knobs: Knobs) -> tuple[Step, ...]:
    return tuple(step_from_json(document) for document in knobs.get(FURTHER, ()))


def combined(base: Sequence[Step], further: Sequence[Step]) -> Recipe:
    """A legal order for the base steps (shape, tuning, int8) and further ones. Raises InvalidRecipe if there is none.

    Further shapes come after structured pruning, whose channel counts belong to the uncompressed model; another network
    therefore takes its place. What trains by itself comes after the tuning, so that a candidate that is tuned further
    does not repeat it. A further number format takes the place of int8.
    """
    replaced: list[type[Step]] = []
    if any(s.phase is Phase.ENCODING for s in further):
        replaced.append(Quantization)
    if any(s.phase is Phase.STUDENT for s in further):
        replaced.append(StructuredPruning)
    steps = [(s, False) for s in base if type(s) not in replaced]
    steps += [(s, True) for s in further]
    return Recipe(tuple(s for s, late in sorted(steps, key=lambda item: _place(*item))))


def _place(step: Step, further: bool) -> tuple[int, bool]:
    order = list(Phase)
    late = further and step.needs_training and step.phase is Phase.SPARSITY
    return order.index(Phase.TUNING if late else step.phase), further


def key_of(knobs: Knobs) -> str:
    return json.dumps(knobs, sort_keys=True)


class Variants:
    """Changes of a candidate that have not been tried. Deterministic for a seed."""

    def __init__(self, levels: Levels, *, seed: int) -> None:
        self._levels = tuple(levels.items())
        self._random = np.random.default_rng((seed, 5))

    def __bool__(self) -> bool:
        return bool(self._levels)

    def of(
        self, knobs: Knobs, base: Sequence[Step], tried: Container[str], refused: Container[str] = ()
    ) -> dict[str, Any] | None:
        """`knobs` with one further technique added, changed or left out; techniques in a random order, levels from the
        middle outwards. None if all have been tried. base: what the sampler's knobs make. tried: by `key_of`. refused:
        further steps, alone by `key_of`, that never get through the gate."""
        present = further_steps(knobs)
        for index in self._random.permutation(len(self._levels)):
            for steps in _changes(present, *self._levels[index]):
                candidate = {**knobs, FURTHER: [step_to_json(s) for s in steps]}
                if key_of({FURTHER: candidate[FURTHER]}) in refused:
                    continue
                if not steps:
                    del candidate[FURTHER]
                if key_of(candidate) not in tried and _is_legal(base, steps):
                    return candidate
        return None


def _changes(present: Sequence[Step], kind: type[Step], levels: Sequence[Step]) -> Iterator[list[Step]]:
    """The further steps with each other level of `kind`, and without it. A model is one network, in one format."""
    alone = kind.phase in (Phase.STUDENT, Phase.ENCODING)
    others = [s for s in present if type(s) is not kind and not (alone and s.phase is kind.phase)]
    for level in _outwards(levels):
        if level not in present:
            yield [*others, level]
    if any(type(s) is kind for s in present):
        yield others


def _is_legal(base: Sequence[Step], further: Sequence[Step]) -> bool:
    try:
        combined(base, further)
    except InvalidRecipe:
        return False
    return True


def _outwards(levels: Sequence[Step]) -> Iterator[Step]:
    middle = len(levels) // 2
    yield from (levels[i] for i in sorted(range(len(levels)), key=lambda i: (abs(i - middle), i)))

"""Techniques as a dimension of the search: one change at a time, legal, never twice."""

from __future__ import annotations

import json

import pytest

from compressors.errors import InvalidRecipe
from compressors.recipe import (
    STEPS,
    Distillation,
    DynamicQuantization,
    Phase,
    Quantization,
    Recipe,
    StructuredPruning,
    step_to_json,
)
from compressors.recipes.step import Step
from search.spec import SAMPLED, TECHNIQUES
from search.variants import FURTHER, SOLVED, Variants, combined, further_levels, further_steps, key_of

BASE = (StructuredPruning(), Distillation(), Quantization())
ALL = further_levels(TECHNIQUES)


def test_every_technique_can_be_searched_or_only_serves_others() -> None:
    changing = {s for s in STEPS if s.phase in (Phase.SHAPE, Phase.SPARSITY, Phase.ENCODING)}
    assert {s.technique for s in changing} <= {*SAMPLED, *(s.technique for s in (*ALL, *SOLVED))}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.technique)
def test_levels_are_configurations_of_their_technique_and_survive_json(kind: type[Step]) -> None:
    levels = kind.levels()
    assert all(type(level) is kind for level in levels)
    assert len(set(map(repr, levels))) == len(levels)
    for level in levels:
        assert further_steps({FURTHER: [step_to_json(level)]}) == (level,)


def test_variants_change_one_technique_never_repeat_and_end() -> None:
    variants, tried, knobs = Variants(ALL, seed=0), set[str](), {"observer": "mse"}
    found = []
    while (varied := variants.of(knobs, BASE, tried)) is not None:
        assert key_of(varied) not in tried
        tried.add(key_of(varied))
        assert varied["observer"] == "mse"
        assert len(varied[FURTHER]) == 1
        combined(BASE, further_steps(varied))  # legal
        json.dumps(varied)
        found.append(varied[FURTHER][0]["technique"])
    legal = [kind for kind in ALL if any(_legal(level) for level in kind.levels())]
    assert set(found) == {kind.technique for kind in legal}
    assert len(found) == sum(_legal(level) for kind in ALL for level in kind.levels())


def _legal(level: Step) -> bool:
    try:
        combined(BASE, [level])
    except InvalidRecipe:
        return False
    return True


def test_a_variant_of_a_variant_keeps_what_was_there_or_leaves_it_out() -> None:
    variants, tried = Variants({DynamicQuantization: DynamicQuantization.levels()}, seed=0), set[str]()
    first = variants.of({}, BASE, tried)
    assert first is not None
    tried.add(key_of(first))
    again = []
    while (varied := variants.of(first, BASE, tried)) is not None:
        tried.add(key_of(varied))
        again.append(varied)
    assert {} in again
    assert sum(FURTHER in v for v in again) == len(DynamicQuantization.levels()) - 1


def test_same_seed_same_variants() -> None:
    def first(seed: int) -> object:
        return Variants(ALL, seed=seed).of({}, BASE, set())

    assert first(3) == first(3)


def test_a_further_number_format_takes_the_place_of_int8() -> None:
    recipe = combined(BASE, [DynamicQuantization()])
    assert recipe == Recipe((StructuredPruning(), Distillation(), DynamicQuantization()))


def test_another_network_takes_the_place_of_structured_pruning() -> None:
    for kind in (s for s in ALL if s.phase is Phase.STUDENT):
        steps = combined(BASE, [ALL[kind][0]]).steps
        assert [type(s) for s in steps] == [kind, Distillation, Quantization]


def test_further_shapes_come_after_structured_pruning() -> None:
    shapes = [s for s in ALL if s.phase is Phase.SHAPE]
    for kind in shapes:
        steps = combined(BASE, [kind.levels()[0]]).steps
        assert [type(s) for s in steps] == [StructuredPruning, kind, Distillation, Quantization]

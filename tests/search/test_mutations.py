"""Local refinement of good candidates, one or two decisions at a time."""

from __future__ import annotations

from dataclasses import replace

from compressors.recipe import Distillation, Quantization, Recipe, StructuredPruning
from search.layer_plan import LayerPlan, filled, plan_of
from search.mutations import MUTATION, RATES, Mutations, start_of
from search.records import Trial
from search.solver import Scope
from search.variants import key_of
from tests.search.simulation import network

PLAIN = network()
PROFILE = replace(PLAIN, blocks={"conv2": ("conv2", "conv3")}, integer_layers=tuple(s.name for s in PLAIN.shapes))
WHOLE = Scope(bits=True, drop=True)
TEMPLATE = Recipe((StructuredPruning(), Distillation(), Quantization()))


def parent(number: int, plan: LayerPlan) -> Trial:
    knobs = {"learning_rate": 0.03, "parent": number}
    return Trial(number=number, state="stopped", knobs=knobs, recipe=filled(TEMPLATE, plan, PROFILE).to_json())


PARENT = parent(0, LayerPlan({**PROFILE.sizes, "conv1": 16}, {"conv4": 4}))


def test_a_mutation_moves_one_or_two_decisions_by_one_step_and_pins_them() -> None:
    mutations, tried = Mutations(PROFILE, WHOLE, seed=0), set[str]()
    before = plan_of(Recipe.from_json(PARENT.recipe or {}), PROFILE)
    kinds = set()
    for _ in range(60):
        knobs = mutations.of([PARENT], tried)
        assert knobs is not None
        assert key_of(knobs) not in tried
        tried.add(key_of(knobs))
        plan, pinned = start_of(knobs)
        assert plan is not None
        assert 1 <= len(pinned) <= 2
        for subject in pinned:
            assert plan.value_of(*subject) != before.value_of(*subject)
        kinds |= {kind for kind, _ in pinned}
        rest = {**before.keep} | {name: plan.keep[name] for kind, name in pinned if kind == "keep"}
        assert plan.keep == rest, "nothing moves but what is pinned"
        assert RATES[0] <= knobs["learning_rate"] <= RATES[1]
    assert kinds == {"keep", "bits", "drop"}


def test_better_parents_are_chosen_more_often_and_the_seed_decides() -> None:
    parents = [PARENT, *(parent(n, LayerPlan({**PROFILE.sizes, "conv1": 8 * n})) for n in (1, 2))]
    chosen = [[], []]  # type: list[list[int]]
    for run in chosen:
        mutations = Mutations(PROFILE, WHOLE, seed=3)
        run += [(mutations.of(parents, ()) or {})["parent"] for _ in range(80)]
    assert chosen[0] == chosen[1]
    counts = [chosen[0].count(n) for n in range(3)]
    assert counts == sorted(counts, reverse=True)
    assert counts[2] > 0


def test_what_has_gone_with_a_block_is_not_moved() -> None:
    mutations = Mutations(PROFILE, Scope(keep=False, bits=True), seed=0)
    gone = parent(0, LayerPlan(PROFILE.sizes, {}, frozenset({"conv2"})))
    for _ in range(40):
        knobs = mutations.of([gone], ())
        assert knobs is not None
        assert not {name for _, name in start_of(knobs)[1]} & {"conv2", "conv3"}


def test_a_mutation_of_a_mutation_starts_from_its_recipe() -> None:
    mutations = Mutations(PROFILE, WHOLE, seed=0)
    first = mutations.of([PARENT], ())
    assert first is not None
    second = mutations.of([replace(PARENT, knobs=first)], ())
    assert second is not None
    assert second[MUTATION] != first[MUTATION]


def test_nothing_comes_of_no_parents_or_no_decisions() -> None:
    assert Mutations(PROFILE, WHOLE, seed=0).of([], ()) is None
    assert Mutations(PROFILE, Scope(keep=False), seed=0).of([PARENT], ()) is None

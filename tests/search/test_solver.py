"""Sharing a budget out between layers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from compressors.recipe import DepthPruning, Quantization, Recipe, StructuredPruning
from search.cost_prediction import CostModel, PlanCosts
from search.feasibility import Limits
from search.layer_plan import Decision, LayerPlan, filled, full_plan, plan_of, template_of
from search.sensitivity import PRUNING_LEVELS, ROUNDING_LEVELS, Entry, Sensitivity
from search.solver import BITS, Allocation, Scope, Solver, floors, options
from tests.search.simulation import network


def sensitivity(harm: dict[str, float]) -> Sensitivity:
    return Sensitivity(
        Entry(technique="structured_pruning", name=n, level=level, loss=h * (1 - level), metric=0.5)
        for n, h in harm.items()
        for level in PRUNING_LEVELS
    )


PROFILE = network()
EVEN = sensitivity({g.name: 1.0 for g in PROFILE.groups})
CHANNELS = Scope()


def channels(found: Sensitivity = EVEN) -> Solver:
    return Solver(PROFILE, found, integers=False, scope=CHANNELS)


def proportional(costs: PlanCosts) -> CostModel:
    """Latency is work, size is what is stored."""
    return CostModel(prices=(0.0, 0.0, *(1.0 for _ in costs.classes)), size=(0.0, 1.0))


PROPORTIONAL = proportional(channels().costs)


def solved(limits: Limits, how: Allocation, found: Sensitivity = EVEN) -> Mapping[str, int]:
    return channels(found).solve(limits, PROPORTIONAL, how).plan.keep


@pytest.mark.parametrize(
    ("size", "multiple", "expected"), [(64, 16, (64, 48, 32, 16)), (16, 8, (16, 8)), (6, 8, (6, 5, 4, 3, 2, 1))]
)
def test_options_are_multiples_down_to_an_eighth(size: int, multiple: int, expected: tuple[int, ...]) -> None:
    assert options(size, multiple) == expected


def test_every_group_has_a_smaller_option() -> None:
    for size in range(2, 200):
        for multiple in (4, 8, 16):
            found = options(size, multiple)
            assert found[0] == size
            assert len(found) > 1


@pytest.mark.parametrize("limits", [Limits(0.5, None), Limits(None, 0.3), Limits(0.6, 0.35), Limits(0.1, 0.1)])
@pytest.mark.parametrize("multiple", [4, 8, 16])
def test_solution_fits_and_is_tight(limits: Limits, multiple: int) -> None:
    solver = channels()
    found = solver.solve(limits, PROPORTIONAL, Allocation(channel_multiple=multiple))
    if not found.fits:
        assert all(c == options(32, multiple)[-1] for c in found.plan.keep.values())
        return
    features, parameters = solver.costs.total(found.plan)
    assert sum(features[1:]) == pytest.approx(found.latency_ratio)
    assert parameters == pytest.approx(found.size_ratio)
    for name, count in found.plan.keep.items():  # one more step in any group would break a limit
        larger = [c for c in options(32, multiple) if c > count]
        if not larger:
            continue
        features, parameters = solver.costs.total(found.plan.having(Decision("keep", name, larger[-1])))
        work = sum(features[1:])
        over_latency = limits.latency_ratio is not None and work > limits.latency_ratio
        over_size = limits.size_ratio is not None and parameters > limits.size_ratio
        assert over_latency or over_size


def test_sensitive_groups_keep_more() -> None:
    harm = {g.name: 10.0 if g.name == "conv2" else 1.0 for g in PROFILE.groups}
    keep = solved(Limits(0.5, None), Allocation(), sensitivity(harm))
    assert keep["conv2"] == 32
    assert min(keep.values()) < 32


def test_sharpness_zero_ignores_sensitivity() -> None:
    harm = {g.name: 10.0 if g.name == "conv2" else 1.0 for g in PROFILE.groups}
    blunt = Allocation(sharpness=0.0)
    one = solved(Limits(0.5, None), blunt, sensitivity(harm))
    other = solved(Limits(0.5, None), blunt)
    assert one == other


def test_depth_bias_spares_late_layers() -> None:
    early = solved(Limits(0.5, None), Allocation(depth_bias=-3.0))
    late = solved(Limits(0.5, None), Allocation(depth_bias=3.0))
    assert early["conv0"] >= late["conv0"]
    assert early["conv5"] < late["conv5"]


def test_floors_are_the_smallest_shape_one_block_of_kernels_and_all_that_can_go() -> None:
    smallest, block = floors(PROFILE, CHANNELS)
    assert set(smallest.keep.values()) == {4}
    assert set(block.keep.values()) == {16}
    *_, least = floors(RESIDUAL, Scope(bits=True, drop=True))
    assert set(least.bits.values()) == {2}
    assert least.dropped == {"conv2"}
    assert floors(RESIDUAL, Scope(keep=False)) == ()


# -- bits and blocks ---------------------------------------------------------------------------------------------------

LAYERS = tuple(s.name for s in PROFILE.shapes)
RESIDUAL = replace(PROFILE, blocks={"conv2": ("conv2", "conv3")}, integer_layers=LAYERS)


def rounding(harm: Mapping[str, float]) -> list[Entry]:
    """Each bit less multiplies a layer's loss by four."""
    return [
        Entry(technique="quantization", name=n, level=bits, loss=h * 4.0 ** (2 - bits), metric=0.5)
        for n, h in harm.items()
        for bits in ROUNDING_LEVELS
    ]


def test_bits_are_the_least_harm_that_an_integer_programme_finds() -> None:
    """Bits alone are separable, so that scipy's HiGHS gives the optimum: the greedy plan is at most one step of one
    layer away from it."""
    rng = np.random.default_rng(0)
    scope = Scope(keep=False, bits=True)
    for _ in range(10):
        harm = {name: float(h) for name, h in zip(LAYERS, rng.uniform(0.1, 10, len(LAYERS)), strict=True)}
        found = Sensitivity(rounding(harm))
        solver = Solver(RESIDUAL, found, integers=True, scope=scope)
        cost, limit = proportional(solver.costs), float(rng.uniform(0.08, 0.2))
        solution = solver.solve(Limits(None, limit), cost, Allocation())
        assert solution.fits
        assert solution.size_ratio <= limit
        best = _optimum(solver, limit)
        assert best <= solution.harm * (1 + 1e-9)
        assert solution.harm <= 1.5 * best


def _optimum(solver: Solver, limit: float) -> float:
    full, how = full_plan(RESIDUAL), Allocation()
    harm, stored, rows = [], [], []
    for i, layer in enumerate(LAYERS):
        for bits in BITS:
            decision = Decision("bits", layer, bits)
            harm.append(solver.harm(decision, how))
            stored.append(
                sum(solver.costs.layer(j, full.having(decision))[3] for j in solver.costs.touching["bits", layer])
            )
            rows.append(i)
    one = np.equal.outer(np.arange(len(LAYERS)), np.array(rows)).astype(float)
    constraints = [LinearConstraint(one, 1, 1), LinearConstraint(np.array([stored]), -np.inf, limit)]
    found = milp(np.array(harm), constraints=constraints, integrality=np.ones(len(harm)), bounds=Bounds(0, 1))
    return float(found.fun)


def test_a_harmless_block_goes_before_channels_and_takes_its_groups_along() -> None:
    entries = [*EVEN.entries, Entry(technique="depth_pruning", name="conv2", level=0.0, loss=0.01, metric=0.8)]
    solver = Solver(RESIDUAL, Sensitivity(entries), integers=True, scope=Scope(drop=True))
    cost = proportional(solver.costs)
    solution = solver.solve(Limits(0.75, None), cost, Allocation())
    assert solution.fits
    assert solution.plan.dropped == {"conv2"}
    recipe = filled(Recipe((StructuredPruning(), Quantization())), solution.plan, RESIDUAL)
    assert recipe.first(DepthPruning) == DepthPruning(blocks=("conv2",))
    assert plan_of(recipe, RESIDUAL).dropped == {"conv2"}
    spared = solver.solve(Limits(0.75, None), cost, Allocation(block_bias=8.0))
    assert not spared.plan.dropped


def test_a_block_that_goes_takes_its_decisions_out_of_the_recipe() -> None:
    profile = replace(RESIDUAL, blocks={"conv2": ("conv1", "conv2", "conv3")})
    plan = LayerPlan({**profile.sizes, "conv1": 8, "conv4": 16}, {"conv2": 4, "conv5": 3}, frozenset({"conv2"}))
    recipe = filled(Recipe((StructuredPruning(), Quantization())), plan, profile)
    assert recipe.pruning == StructuredPruning(keep={"conv4": 16})
    assert recipe.quantization == Quantization(layer_bits={"conv5": (3, 8)})
    assert template_of(recipe) == Recipe((StructuredPruning(), Quantization()))


def test_what_is_pinned_stays_and_the_rest_is_repaired() -> None:
    solver = channels()
    found = solver.solve(Limits(0.5, None), PROPORTIONAL, Allocation())
    start = found.plan.having(Decision("keep", "conv1", 32))
    repaired = solver.solve(Limits(0.5, None), PROPORTIONAL, Allocation(), start=start, pinned={("keep", "conv1")})
    assert repaired.fits
    assert repaired.plan.keep["conv1"] == 32
    assert repaired.plan != start


def test_the_front_goes_all_the_way_down_and_only_gets_worse() -> None:
    entries = [*EVEN.entries, *rounding(dict.fromkeys(LAYERS, 1.0))]
    solver = Solver(RESIDUAL, Sensitivity(entries), integers=True, scope=Scope(bits=True, drop=True))
    front = solver.front(proportional(solver.costs), Allocation())
    assert front[0].plan == full_plan(RESIDUAL)
    assert front[0].harm == 0
    assert front[-1].size_ratio < 0.02
    for milder, harder in itertools.pairwise(front):
        assert harder.latency_ratio <= milder.latency_ratio + 1e-9
        assert harder.size_ratio <= milder.size_ratio + 1e-9
    for solution in front[:: len(front) // 5]:
        features, stored = solver.costs.total(solution.plan)
        assert solution.size_ratio == pytest.approx(stored)
        assert solution.latency_ratio == pytest.approx(sum(features[1:]))


# -- the cost model ----------------------------------------------------------------------------------------------------


def test_one_measurement_scales_everything_in_proportion() -> None:
    costs = PlanCosts(PROFILE, integers=True)
    full = full_plan(PROFILE)
    model = CostModel.fit([costs.point(full, latency_ratio=0.4, size_ratio=0.3)])
    half = LayerPlan(dict.fromkeys(PROFILE.sizes, 16))
    features, stored = costs.total(half)
    assert model.latency_ratio(features) == pytest.approx(0.4 * sum(features[1:]))
    assert model.size_ratio(stored) == pytest.approx(0.3 * stored / costs.total(full)[1])


def test_prices_by_class_are_learnt_from_twenty_measurements() -> None:
    """Calls and three resolutions with prices of their own, 2 % of noise: half of new plans within 3 %."""
    shapes = tuple(replace(s, positions=1024 // 4 ** (i // 3)) for i, s in enumerate(PROFILE.shapes))
    profile = replace(PROFILE, shapes=shapes, blocks={"conv2": ("conv2",), "conv4": ("conv4",)})
    costs, rng = PlanCosts(profile, integers=True), np.random.default_rng(0)
    prices = np.array([0.02, 0.1, *rng.uniform(0.2, 0.8, len(costs.classes))])

    def draw() -> LayerPlan:
        dropped = frozenset(b for b in profile.blocks if rng.random() < 0.3)
        return LayerPlan({n: int(rng.choice((8, 16, 24, 32))) for n in profile.sizes}, {}, dropped)

    def true(plan: LayerPlan) -> float:
        features, _ = costs.total(plan)
        return float(prices[0] + prices[1:] @ np.array(features))

    points = [
        costs.point(p, latency_ratio=true(p) * rng.normal(1, 0.02), size_ratio=0.1) for p in (draw() for _ in range(20))
    ]
    model = CostModel.fit(points)
    new = [draw() for _ in range(50)]
    errors = [abs(model.latency_ratio(costs.total(p)[0]) / true(p) - 1) for p in new]
    assert float(np.median(errors)) < 0.03


def test_cost_model_never_predicts_that_more_work_is_faster() -> None:
    costs = PlanCosts(PROFILE, integers=True)
    points = [
        costs.point(full_plan(PROFILE), latency_ratio=0.3, size_ratio=0.3),
        costs.point(LayerPlan(dict.fromkeys(PROFILE.sizes, 8)), latency_ratio=0.5, size_ratio=0.1),
    ]
    assert min(CostModel.fit(points).prices) >= 0


def test_rounding_loss_is_monotone_and_unknown_layers_have_one_too() -> None:
    found = Sensitivity(rounding({"a": 1.0}))
    for layer in ("a", "unknown"):
        losses = [found.rounding_loss(layer, bits) for bits in BITS]
        assert losses == sorted(losses)
        assert losses[0] == 0
    assert found.rounding_loss("a", 5) == pytest.approx(4.0**-3 - 4.0**-6)

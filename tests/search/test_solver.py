"""Sharing a budget out between layers."""

from __future__ import annotations

import pytest

from search.cost_prediction import CostModel, ShapeCosts
from search.feasibility import Limits
from search.sensitivity import PRUNING_LEVELS, Entry, Sensitivity
from search.solver import Allocation, Solver, floors, options
from tests.search.simulation import network

PROPORTIONAL = CostModel(latency=(0.0, 1.0), size=(0.0, 1.0))


def sensitivity(harm: dict[str, float]) -> Sensitivity:
    return Sensitivity(
        Entry(technique="structured_pruning", name=n, level=level, loss=h * (1 - level), metric=0.5)
        for n, h in harm.items()
        for level in PRUNING_LEVELS
    )


PROFILE = network()
EVEN = sensitivity({g.name: 1.0 for g in PROFILE.groups})


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
    solver = Solver(PROFILE, EVEN, aligned=False)
    found = solver.solve(limits, PROPORTIONAL, Allocation(channel_multiple=multiple))
    if not found.fits:
        assert all(c == options(32, multiple)[-1] for c in found.keep.values())
        return
    work, parameters = solver.costs.total(found.keep)
    assert work == pytest.approx(found.latency_ratio)
    assert parameters == pytest.approx(found.size_ratio)
    for name, count in found.keep.items():  # one more step in any group would break a limit
        larger = [c for c in options(32, multiple) if c > count]
        if not larger:
            continue
        work, parameters = solver.costs.total({**found.keep, name: larger[-1]})
        over_latency = limits.latency_ratio is not None and work > limits.latency_ratio
        over_size = limits.size_ratio is not None and parameters > limits.size_ratio
        assert over_latency or over_size


def test_sensitive_groups_keep_more() -> None:
    harm = {g.name: 10.0 if g.name == "conv2" else 1.0 for g in PROFILE.groups}
    keep = Solver(PROFILE, sensitivity(harm), aligned=False).solve(Limits(0.5, None), PROPORTIONAL, Allocation()).keep
    assert keep["conv2"] == 32
    assert min(keep.values()) < 32


def test_sharpness_zero_ignores_sensitivity() -> None:
    harm = {g.name: 10.0 if g.name == "conv2" else 1.0 for g in PROFILE.groups}
    blunt = Allocation(sharpness=0.0)
    one = Solver(PROFILE, sensitivity(harm), aligned=False).solve(Limits(0.5, None), PROPORTIONAL, blunt).keep
    other = Solver(PROFILE, EVEN, aligned=False).solve(Limits(0.5, None), PROPORTIONAL, blunt).keep
    assert one == other


def test_depth_bias_spares_late_layers() -> None:
    early = (
        Solver(PROFILE, EVEN, aligned=False).solve(Limits(0.5, None), PROPORTIONAL, Allocation(depth_bias=-3.0)).keep
    )
    late = Solver(PROFILE, EVEN, aligned=False).solve(Limits(0.5, None), PROPORTIONAL, Allocation(depth_bias=3.0)).keep
    assert early["conv0"] >= late["conv0"]
    assert early["conv5"] < late["conv5"]


def test_floors_are_the_smallest_shape_and_one_block() -> None:
    smallest, block = floors(PROFILE)
    assert set(smallest.values()) == {4}
    assert set(block.values()) == {16}


def test_cost_model_learns_the_overhead_from_two_points() -> None:
    costs = ShapeCosts(PROFILE.shapes, PROFILE.sizes, aligned=False)
    half = dict.fromkeys(PROFILE.sizes, 16)
    points = [
        costs.point(keep, latency_ratio=0.2 + 0.3 * costs.total(keep)[0], size_ratio=0.05 + 0.2 * costs.total(keep)[1])
        for keep in (PROFILE.sizes, half)
    ]
    model = CostModel.fit(points)
    assert model.latency == pytest.approx((0.2, 0.3))
    assert model.size == pytest.approx((0.05, 0.2))


def test_cost_model_never_predicts_that_more_work_is_faster() -> None:
    costs = ShapeCosts(PROFILE.shapes, PROFILE.sizes, aligned=False)
    points = [
        costs.point(PROFILE.sizes, latency_ratio=0.3, size_ratio=0.3),
        costs.point(dict.fromkeys(PROFILE.sizes, 8), latency_ratio=0.5, size_ratio=0.1),
    ]
    assert CostModel.fit(points).latency[1] >= 0

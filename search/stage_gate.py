"""Gate stage: propose, repair, shape, export, measure. No training, well under a second a shape.

The solver fits a candidate to limits that are scaled by what the last plan really cost, until the measured cost
meets the budget (or the tries are used up). Costs are cached by shape, runtime and machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressors.artifact import build_artifact
from compressors.onnx_export import serialize
from compressors.pipeline import run_recipe
from compressors.programs import describe_layers
from compressors.recipe import Recipe
from search.cost_prediction import CostModel, PlanCosts, Point
from search.feasibility import Limits
from search.layer_plan import filled, full_plan, template_key
from search.measuring import measure_quietly
from search.profile import Profile
from search.records import Latency
from search.solver import Solver
from search.stage_clock import StageClock
from search.stage_profile import baseline_file, profile
from search.work import Gated, GateWork
from search.workbench import Workbench

ATTEMPTS = 5
CLOSE = 0.04  # a shape within this share under a limit is not worth another attempt


@dataclass(frozen=True)
class _Tried:
    """One measured plan; predicted: (latency ratio, size ratio) before the measurement."""

    recipe: Recipe
    cost: Mapping[str, Any]
    point: Point
    predicted: tuple[float, float] | None = None


def gate(bench: Workbench, work: GateWork) -> Gated:
    clock = StageClock()
    with clock.stage("load"):  # what this process needs once; nothing later
        found = profile(bench).profile
        bench.load()
    if work.allocation is None:
        alone = _tried(bench, work.recipe, PlanCosts.under(work.recipe, found), clock)
        return _result(work, [], alone, fits=True, clock=clock)
    limits = work.limits
    assert limits is not None and work.sensitivity is not None
    solver = Solver(found, work.sensitivity, integers=work.recipe.quantization is not None, scope=work.scope)
    points = [*work.points] or [solver.costs.point(full_plan(found), latency_ratio=1.0, size_ratio=1.0)]
    tried: list[_Tried] = []
    scale = Limits(1.0, 1.0)
    best: _Tried | None = None
    for _ in range(ATTEMPTS):
        with clock.stage("propose"):
            solution = solver.solve(
                _scaled(limits, scale), CostModel.fit(points), work.allocation, start=work.start, pinned=work.pinned
            )
        recipe = filled(work.recipe, solution.plan, found)
        if any(recipe == other.recipe for other in tried):
            break
        predicted = (solution.latency_ratio, solution.size_ratio)
        tried.append(_tried(bench, recipe, solver.costs, clock, predicted))
        points.append(tried[-1].point)
        cost = tried[-1].cost
        room = _room(limits, cost, found)
        if room >= 0 and (best is None or room < _room(limits, best.cost, found)):
            best = tried[-1]
        if 0 <= room <= CLOSE or not solution.fits:
            break
        scale = _rescaled(scale, limits, cost, found, *predicted)
    chosen = best or min(tried, key=lambda t: -_room(limits, t.cost, found))
    return _result(work, [t for t in tried if t is not chosen], chosen, fits=best is not None, clock=clock)


def _tried(
    bench: Workbench,
    recipe: Recipe,
    costs: PlanCosts,
    clock: StageClock,
    predicted: tuple[float, float] | None = None,
) -> _Tried:
    """Measured, and kept for later jobs unless it is known already or the machine was noisy."""
    cost, cached = _cost(bench, recipe, clock)
    size_ratio = cost["size_bytes"] / costs.profile.baseline.size_bytes
    point = costs.measured(recipe, latency_ratio=cost["ratio"], size_ratio=size_ratio)
    if not cached and not cost["noisy"]:
        bench.cost_history.add(template_key(recipe), point)
    return _Tried(recipe, cost, point, predicted)


def _cost(bench: Workbench, recipe: Recipe, clock: StageClock) -> tuple[dict[str, Any], bool]:
    """(latency, bytes, MACs and parameters of a recipe, whether they were found). The weights' values do not count."""
    key = {**bench.model_key, "recipe": recipe.cost_key, **bench.target_key}

    def compute(folder: Path) -> Mapping[str, Any]:
        with clock.stage("shape"):
            model = run_recipe(bench.program.module, recipe, bench.draft)
        with clock.stage("export"):
            path = folder / "shape.onnx"
            content = serialize(build_artifact(model, bench.example))
            path.write_bytes(content)
        with clock.stage("latency"):
            measured = measure_quietly(bench, path, baseline_file(bench))
        layers = describe_layers(model, bench.example)
        path.unlink()
        return {
            "p50_ms": measured.p50_ms,
            "p90_ms": measured.p90_ms,
            "ratio": measured.ratio,
            "ratio_ci": list(measured.ratio_ci),
            "repeats": measured.runs,
            "noisy": measured.noisy,
            "size_bytes": len(content),
            "macs": sum(layer.macs for layer in layers),
            "parameters": sum(p.numel() for p in model.parameters()),
        }

    value, _, cached = bench.cache.get_or_compute("cost", key, compute, keep=lambda cost: not cost["noisy"])
    if cached:
        clock.found("latency")
    return value, cached


def _scaled(limits: Limits, scale: Limits) -> Limits:
    return Limits(
        None if limits.latency_ratio is None else limits.latency_ratio * (scale.latency_ratio or 1.0),
        None if limits.size_ratio is None else limits.size_ratio * (scale.size_ratio or 1.0),
    )


def _rescaled(
    scale: Limits, limits: Limits, cost: Mapping[str, Any], found: Profile, latency: float, size: float
) -> Limits:
    """Half-way between what the last shape missed by and no change, so that steps of the kernels do not make it swing.

    The cost model has seen the last shape too, and moves with it; the scale only removes what it cannot express.
    """
    latency_error = latency / cost["ratio"]
    size_error = size * found.baseline.size_bytes / cost["size_bytes"]
    return Limits(
        None if limits.latency_ratio is None else (scale.latency_ratio or 1.0) * latency_error**0.5,
        None if limits.size_ratio is None else (scale.size_ratio or 1.0) * size_error**0.5,
    )


def _room(limits: Limits, cost: Mapping[str, Any], found: Profile) -> float:
    """Smallest relative distance under a limit; negative: over it."""
    rooms = []
    if limits.latency_ratio is not None:
        rooms.append(1 - cost["ratio"] / limits.latency_ratio)
    if limits.size_ratio is not None:
        rooms.append(1 - cost["size_bytes"] / found.baseline.size_bytes / limits.size_ratio)
    return min(rooms, default=0.0)


def _result(work: GateWork, others: list[_Tried], chosen: _Tried, *, fits: bool, clock: StageClock) -> Gated:
    cost = chosen.cost
    return Gated(
        trial=work.trial,
        recipe=chosen.recipe,
        latency=Latency(
            p50_ms=cost["p50_ms"],
            p90_ms=cost["p90_ms"],
            ratio=cost["ratio"],
            ratio_ci=(cost["ratio_ci"][0], cost["ratio_ci"][1]),
            repeats=cost["repeats"],
            noisy=cost["noisy"],
        ),
        size_bytes=cost["size_bytes"],
        macs=cost["macs"],
        parameters=cost["parameters"],
        attempts=1 + len(others),
        fits=fits,
        points=tuple(t.point for t in (*others, chosen)),
        stages=clock.stages,
        predicted=chosen.predicted,
    )

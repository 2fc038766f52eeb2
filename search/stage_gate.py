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
from search.layer_plan import filled, full_plan, plan_of, template_key
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
    predicted: tuple[float, float] | None = None


def gate(bench: Workbench, work: GateWork) -> Gated:
    clock = StageClock()
    with clock.stage("load"):  # what this process needs once; nothing later
        found = profile(bench).profile
        bench.load()
    if work.allocation is None:
        cost = _cost(bench, work.recipe, found, clock)
        return _result(work, found, [], _Tried(work.recipe, cost), fits=True, clock=clock)
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
        cost = _cost(bench, recipe, found, clock)
        tried.append(_Tried(recipe, cost, (solution.latency_ratio, solution.size_ratio)))
        points.append(_point(recipe, cost, found))
        room = _room(limits, cost, found)
        if room >= 0 and (best is None or room < _room(limits, best.cost, found)):
            best = tried[-1]
        if 0 <= room <= CLOSE or not solution.fits:
            break
        scale = _rescaled(scale, limits, cost, found, solution.latency_ratio, solution.size_ratio)
    chosen = best or min(tried, key=lambda t: -_room(limits, t.cost, found))
    return _result(work, found, [t for t in tried if t is not chosen], chosen, fits=best is not None, clock=clock)


def _cost(bench: Workbench, recipe: Recipe, found: Profile, clock: StageClock) -> dict[str, Any]:
    """Latency, bytes, MACs and parameters of a recipe. Independent of the weights' values."""
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
    elif not value["noisy"]:
        bench.cost_history.add(template_key(recipe), _point(recipe, value, found))
    return value


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


def _point(recipe: Recipe, cost: Mapping[str, Any], found: Profile) -> Point:
    size_ratio = cost["size_bytes"] / found.baseline.size_bytes
    costs = PlanCosts.under(recipe, found)
    return costs.point(plan_of(recipe, found), latency_ratio=cost["ratio"], size_ratio=size_ratio)


def _result(
    work: GateWork, found: Profile, others: list[_Tried], chosen: _Tried, *, fits: bool, clock: StageClock
) -> Gated:
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
        points=tuple(_point(t.recipe, t.cost, found) for t in (*others, chosen)),
        stages=clock.stages,
        predicted=chosen.predicted,
    )

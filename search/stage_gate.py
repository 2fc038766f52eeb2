"""Gate stage: propose, repair, shape, export, measure. No training, well under a second a shape.

The solver fits a candidate to limits that are scaled by what the last shape really cost, until the measured cost
meets the budget (or the tries are used up). Costs are cached by shape, runtime and machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressors.artifact import build_artifact
from compressors.onnx_export import serialize
from compressors.pipeline import run_recipe
from compressors.programs import describe_layers
from compressors.recipe import Recipe
from search.cost_prediction import CostModel, Point, ShapeCosts
from search.feasibility import Limits
from search.measuring import measure_quietly
from search.profile import Profile
from search.records import Latency
from search.solver import Solver
from search.stage_clock import StageClock
from search.stage_profile import baseline_file, profile
from search.templates import filled, kept, stores_padded_channels
from search.work import Gated, GateWork
from search.workbench import Workbench

ATTEMPTS = 5
CLOSE = 0.04  # a shape within this share under a limit is not worth another attempt


def gate(bench: Workbench, work: GateWork) -> Gated:
    clock = StageClock()
    with clock.stage("load"):  # what this process needs once; nothing later
        found = profile(bench).profile
        bench.load()
    if work.allocation is None:
        cost = _cost(bench, work.recipe, clock)
        return _result(work, found, [(work.recipe, cost)], fits=True, clock=clock)
    limits = work.limits
    assert limits is not None and work.sensitivity is not None
    solver = Solver(found, work.sensitivity, aligned=stores_padded_channels(work.recipe))
    points = list(work.points)
    tried: list[tuple[Recipe, dict[str, Any]]] = []
    scale = Limits(1.0, 1.0)
    best: tuple[Recipe, dict[str, Any]] | None = None
    for _ in range(ATTEMPTS):
        with clock.stage("propose"):
            solution = solver.solve(_scaled(limits, scale), CostModel.fit(points), work.allocation)
        recipe = filled(work.recipe, solution.keep, found.sizes)
        if any(recipe == other for other, _ in tried):
            break
        cost = _cost(bench, recipe, clock)
        tried.append((recipe, cost))
        points.append(_point(solver.costs, recipe, cost, found))
        room = _room(limits, cost, found)
        if room >= 0 and (best is None or room < _room(limits, best[1], found)):
            best = (recipe, cost)
        if 0 <= room <= CLOSE or not solution.fits:
            break
        scale = _rescaled(scale, limits, cost, found, solution.latency_ratio, solution.size_ratio)
    recipe, _ = best or min(tried, key=lambda t: -_room(limits, t[1], found))
    ordered = [t for t in tried if t[0] != recipe] + [t for t in tried if t[0] == recipe]
    return _result(work, found, ordered, fits=best is not None, clock=clock)


def _cost(bench: Workbench, recipe: Recipe, clock: StageClock) -> dict[str, Any]:
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


def _point(costs: ShapeCosts, recipe: Recipe, cost: Mapping[str, Any], found: Profile) -> Point:
    size_ratio = cost["size_bytes"] / found.baseline.size_bytes
    return costs.point(kept(recipe, found.sizes), latency_ratio=cost["ratio"], size_ratio=size_ratio)


def _result(
    work: GateWork, found: Profile, tried: list[tuple[Recipe, dict[str, Any]]], *, fits: bool, clock: StageClock
) -> Gated:
    """tried: the chosen recipe last."""
    recipe, cost = tried[-1]
    costs = ShapeCosts(found.shapes, found.sizes, aligned=stores_padded_channels(recipe))
    return Gated(
        trial=work.trial,
        recipe=recipe,
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
        attempts=len(tried),
        fits=fits,
        points=tuple(_point(costs, r, c, found) for r, c in tried),
        stages=clock.stages,
    )

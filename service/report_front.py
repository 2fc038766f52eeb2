"""The trade-off of a search as a small inline SVG for the report, made without matplotlib: the API renders reports.

Pure geometry; the template draws it. Coordinates are SVG user units with y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Row = Mapping[str, Any]
Kind = Literal["winner", "inside", "outside"]

WIDTH, HEIGHT = 880.0, 400.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 20.0, 18.0, 48.0
POINTS = 1500
SMALLEST_RADIUS, LARGEST_RADIUS = 3.0, 15.0


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    radius: float
    kind: Kind
    title: str


@dataclass(frozen=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class FrontDrawing:
    """All that the template needs. limit_x, limit_y: None where the budget names no such limit."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    points: tuple[Point, ...]
    rejected: tuple[float, ...]
    baseline: Point | None
    front: str
    limit_x: float | None
    limit_y: float | None
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def front_drawing(
    trials: Sequence[Row], baseline: Row | None, budget: Row | None, winner: int | None
) -> FrontDrawing | None:
    """None when no trial has both a latency and a metric: there is nothing to see then."""
    measured = _few([t for t in trials if t.get("latency")], winner)
    scored = [t for t in measured if t.get("metric") is not None]
    if not scored:
        return None
    latency_limit, metric_limit = _limits(baseline, budget)
    before = (baseline or {}).get("metric")
    metrics = [*(float(t["metric"]) for t in scored), *(v for v in (before, metric_limit) if v is not None)]
    pad = max(0.1 * (max(metrics) - min(metrics)), 0.002)
    low, high = min(metrics) - 1.5 * pad, max(metrics) + pad
    furthest = 1.06 * max(1.0, *(_latency(t) for t in measured))
    largest = max(_size(baseline), *(_size(t) for t in scored), 1.0)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(value: float) -> float:
        return round(LEFT + (right - LEFT) * value / furthest, 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - TOP) * (value - low) / (high - low), 1)

    def point(trial: Row) -> Point:
        kind: Kind = "winner" if trial["number"] == winner else "inside" if trial.get("feasible") else "outside"
        radius = max(SMALLEST_RADIUS, LARGEST_RADIUS * math.sqrt(_size(trial) / largest))
        title = f"Trial {trial['number']}: metric {trial['metric']:.4f}, latency {_latency(trial):.3f}×"
        return Point(x(_latency(trial)), y(trial["metric"]), round(radius, 1), kind, title)

    order = {"outside": 0, "inside": 1, "winner": 2}
    front = sorted((t for t in scored if t.get("on_front")), key=_latency)
    return FrontDrawing(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=right,
        top=TOP,
        bottom=bottom,
        points=tuple(sorted(map(point, scored), key=lambda p: order[p.kind])),
        rejected=tuple(x(_latency(t)) for t in measured if t.get("metric") is None),
        baseline=None if before is None else Point(x(1.0), y(before), 7.0, "outside", "Uncompressed model"),
        front=" ".join(f"{x(_latency(t))},{y(t['metric'])}" for t in front),
        limit_x=None if latency_limit is None else x(latency_limit),
        limit_y=None if metric_limit is None else y(metric_limit),
        x_ticks=tuple(Tick(x(v), f"{v:g}×") for v in round_values(0.0, furthest)),
        y_ticks=tuple(Tick(y(v), f"{v:.4g}") for v in round_values(low, high)),
    )


def _few(trials: Sequence[Row], winner: int | None) -> list[Row]:
    """At most about POINTS of them, evenly, with all that stand out: a page must stay small enough to open."""
    step = -(-len(trials) // POINTS)
    return [t for i, t in enumerate(trials) if i % max(step, 1) == 0 or t.get("on_front") or t["number"] == winner]


def round_values(low: float, high: float, about: int = 6) -> list[float]:
    """Values of 1, 2 or 5 times a power of ten inside [low, high]."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]


def _limits(baseline: Row | None, budget: Row | None) -> tuple[float | None, float | None]:
    budget, baseline = budget or {}, baseline or {}
    latency = budget.get("latency_ratio")
    if latency is None and budget.get("latency_ms") is not None and baseline.get("latency_ms"):
        latency = budget["latency_ms"] / baseline["latency_ms"]
    drop, metric = budget.get("max_metric_drop"), baseline.get("metric")
    return latency, None if drop is None or metric is None else metric - drop


def _latency(trial: Row) -> float:
    return float(trial["latency"]["ratio"])


def _size(row: Row | None) -> float:
    return float((row or {}).get("size_bytes") or 0)

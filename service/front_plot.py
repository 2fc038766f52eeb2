"""The trade-off of a search as one picture: latency against metric, size as area, the budget as lines (matplotlib).

Rows are trials as JSON (`search.records.Trial.to_json`). The picture is drawn without pyplot, so that it needs no
display and leaves no global state behind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Row = Mapping[str, Any]

INK: Final = "#1c1a18"
MUTED: Final = "#5d5750"
GRID: Final = "#ece8e0"
GOOD: Final = "#17734a"
DIM: Final = "#a8a198"
ACCENT: Final = "#b4321f"
LIMIT: Final = "#8a5200"
LARGEST_AREA: Final = 420.0  # points^2, the uncompressed model's
SMALLEST_AREA: Final = 24.0


def write_front_png(
    path: Path,
    trials: Sequence[Row],
    baseline: Row | None,
    budget: Row | None,
    winner: int | None,
) -> None:
    """winner: number of the winning trial. baseline and budget: as the job shows them; None draws without them."""
    figure = draw_front(trials, baseline, budget, winner)
    FigureCanvasAgg(figure).print_figure(path, dpi=160)


def draw_front(trials: Sequence[Row], baseline: Row | None, budget: Row | None, winner: int | None) -> Figure:
    figure = Figure(figsize=(8.4, 5.0), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    measured = [t for t in trials if t.get("latency")]
    scored = [t for t in measured if t.get("metric") is not None]
    largest = max([_size(baseline), *(_size(t) for t in scored), 1.0])
    floor, ceiling = _metric_range(scored, baseline, budget)
    axes.set_ylim(floor, ceiling)
    axes.set_xlim(0, 1.08 * max([1.0, *(_latency(t) for t in measured)]))
    _budget(axes, baseline, budget)

    def points(rows: Sequence[Row], label: str, color: str, alpha: float, z: int) -> None:
        if rows:
            axes.scatter(
                [_latency(t) for t in rows],
                [t["metric"] for t in rows],
                s=[max(SMALLEST_AREA, LARGEST_AREA * _size(t) / largest) for t in rows],
                color=color,
                alpha=alpha,
                edgecolors="white",
                linewidths=0.8,
                label=label,
                zorder=z,
            )

    points([t for t in scored if not t.get("feasible") and t["number"] != winner], "outside the budget", DIM, 0.45, 2)
    points([t for t in scored if t.get("feasible") and t["number"] != winner], "inside the budget", GOOD, 0.7, 3)
    points([t for t in scored if t["number"] == winner], f"winner, trial {winner}", ACCENT, 1.0, 5)
    front = sorted((t for t in scored if t.get("on_front")), key=lambda t: _latency(t))
    axes.step(
        [_latency(t) for t in front], [t["metric"] for t in front], where="post", color=GOOD, lw=1.2, ls=":", zorder=2
    )
    gated = [t for t in measured if t.get("metric") is None]
    if gated:
        height = floor + 0.025 * (ceiling - floor)
        label = "rejected before tuning"
        axes.plot([_latency(t) for t in gated], [height] * len(gated), "|", ms=9, mew=1.4, color=DIM, label=label)
    if baseline and baseline.get("metric") is not None:
        axes.plot([1.0], [baseline["metric"]], "D", ms=9, mfc="white", mec=INK, mew=1.8, label="uncompressed", zorder=4)
    _dress(axes)
    return figure


def _budget(axes: Axes, baseline: Row | None, budget: Row | None) -> None:
    latency, metric = _limits(baseline, budget)
    floor, ceiling = axes.get_ylim()
    if latency is not None:
        axes.axvline(latency, color=LIMIT, lw=1.3, ls="--", zorder=1)
        axes.fill_betweenx([floor if metric is None else metric, ceiling], 0, latency, color=GOOD, alpha=0.06, lw=0)
        axes.annotate(
            f"latency limit {latency:.2f}×",
            (latency, floor),
            xytext=(5, 22),
            textcoords="offset points",
            color=LIMIT,
            fontsize=9,
        )
    if metric is not None:
        axes.axhline(metric, color=LIMIT, lw=1.3, ls="--", zorder=1)
        axes.annotate(
            f"lowest metric allowed {metric:.3f}",
            (axes.get_xlim()[1], metric),
            xytext=(-4, 5),
            textcoords="offset points",
            ha="right",
            color=LIMIT,
            fontsize=9,
        )


def _dress(axes: Axes) -> None:
    axes.set_xlabel("latency, share of the uncompressed model", color=MUTED)
    axes.set_ylabel("metric on the validation split", color=MUTED)
    axes.set_title("Trade-off (area: bytes)", loc="left", color=INK, fontsize=12, fontweight="bold", pad=12)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        legend = axes.legend(handles, labels, loc="lower right", frameon=True, fontsize=9, labelcolor=INK)
        legend.get_frame().set(edgecolor="none", facecolor="white", alpha=0.85)
        for handle in legend.legend_handles:
            if handle is not None and hasattr(handle, "set_sizes"):
                handle.set_sizes([60.0])  # one size for all, or the legend would look like data
            elif handle is not None and hasattr(handle, "set_markersize"):
                handle.set_markersize(7)


def _limits(baseline: Row | None, budget: Row | None) -> tuple[float | None, float | None]:
    """Latency limit as a share of the baseline, and the lowest metric allowed."""
    budget, baseline = budget or {}, baseline or {}
    latency = budget.get("latency_ratio")
    if latency is None and budget.get("latency_ms") is not None and baseline.get("latency_ms"):
        latency = budget["latency_ms"] / baseline["latency_ms"]
    drop, metric = budget.get("max_metric_drop"), baseline.get("metric")
    return latency, None if drop is None or metric is None else metric - drop


def _metric_range(scored: Sequence[Row], baseline: Row | None, budget: Row | None) -> tuple[float, float]:
    values = [float(t["metric"]) for t in scored]
    lowest_allowed = _limits(baseline, budget)[1]
    values += [v for v in ((baseline or {}).get("metric"), lowest_allowed) if v is not None]
    values = [v for v in values if math.isfinite(v)]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    pad = max(0.1 * (high - low), 0.002)
    return low - 1.6 * pad, high + pad


def _latency(trial: Row) -> float:
    """Of a measured trial, as a share of the baseline's."""
    return float(trial["latency"]["ratio"])


def _size(row: Row | None) -> float:
    return float((row or {}).get("size_bytes") or 0)

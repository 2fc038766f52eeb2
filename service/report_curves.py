"""Curves over the seconds of a job as small inline SVGs: what was known until then, a step at each change.

Pure geometry; the template draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.report_front import Tick, round_values

WIDTH, HEIGHT = 430.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 12.0, 40.0


@dataclass(frozen=True, kw_only=True)
class CurveDrawing:
    """All that the template needs. last: the value at the end, with the place where it stands."""

    title: str
    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    steps: str
    last: tuple[float, float]
    last_text: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def curve_drawing(title: str, points: Sequence[Sequence[float]] | None) -> CurveDrawing | None:
    """points: [[seconds, value], …], each value holding until the next. None of fewer than two."""
    if not points or len(points) < 2:
        return None
    end = max(points[-1][0], 1e-9)
    values = [value for _, value in points]
    pad = 0.08 * (max(values) - min(values)) or max(abs(values[0]) * 0.05, 1e-6)
    low, high = min(values) - pad, max(values) + pad
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(at: float) -> float:
        return round(LEFT + (right - LEFT) * at / end, 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - TOP) * (value - low) / (high - low), 1)

    path = [f"M{x(points[0][0])} {y(points[0][1])}"]
    path += [f"H{x(at)}V{y(value)}" for at, value in points[1:]]
    return CurveDrawing(
        title=title,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=right,
        top=TOP,
        bottom=bottom,
        steps="".join(path),
        last=(x(points[-1][0]), y(points[-1][1])),
        last_text=f"{points[-1][1]:.4g}",
        x_ticks=tuple(Tick(x(v), f"{v:g} s") for v in round_values(0.0, end, 4)),
        y_ticks=tuple(Tick(y(v), f"{v:.4g}") for v in round_values(low, high, 4)),
    )

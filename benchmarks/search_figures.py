"""What the standings say: tables, aggregates with their spread, and curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.search_cells import PROBLEMS
from benchmarks.search_contest import Standing, spread

RIVAL = "tpe"
OURS = "bantam"
COLOURS = {
    "bantam": "#c0392b",
    "bantam-all": "#e59866",
    "random": "#7f8c8d",
    "tpe": "#2471a3",
    "nsga2": "#1e8449",
    "tpe-checks-cost": "#7d3c98",
}

Cell = tuple[str, int]
Cells = Mapping[Cell, Mapping[str, Standing]]


def by_cell(standings: Iterable[Standing]) -> dict[Cell, dict[str, Standing]]:
    cells: dict[Cell, dict[str, Standing]] = {}
    for s in standings:
        cells.setdefault((s.network, s.seed), {})[s.contestant] = s
    return dict(sorted(cells.items()))


def time_ratio(ours: Standing, rival: Standing) -> float | None:
    """Our seconds until the best was as good as the rival's last, as a share of all the rival's tuning seconds.

    0: before any tuning. Infinite: never. None: the rival found nothing.
    """
    if not rival.curve:
        return None
    reached = ours.reached(rival.curve[-1][1])
    return math.inf if reached is None else reached / max(rival.tuning_s, 1e-9)


def own_time_ratio(ours: Standing, rival: Standing) -> float | None:
    """The same as a share of the seconds that the rival itself took to get there: the stricter figure."""
    if not rival.curve:
        return None
    target = rival.curve[-1][1]
    mine, theirs = ours.reached(target), rival.reached(target)
    assert theirs is not None
    return math.inf if mine is None else mine / max(theirs, 1e-9)


def beats(ours: Standing, rival: Standing) -> float:
    """1: a better answer within the budget, 0.5: an equal one, 0: a worse one or none."""
    mine, theirs = (-1.0 if s.answer is None else s.answer for s in (ours, rival))
    return 0.5 if mine == theirs else float(mine > theirs)


def summary(cells: Cells, ours: str = OURS) -> dict[str, Any]:
    """Aggregates of one contestant against all others, for JSON and for the closing lines of the table."""
    found: dict[str, Any] = {"contestant": ours, "cells": 0, "against": {}}
    mine = [standings[ours] for standings in cells.values() if ours in standings]
    found["cells"] = len(mine)
    found["over_budget_tuned"] = sum(s.over_budget for s in mine)
    found["feasible_share"] = [s.feasible_share for s in mine]
    found["tuning_share_of_wall"] = [s.tuning_s / max(s.wall_s, 1e-9) for s in mine]
    limited = [s for s in mine if "latency_ratio" in PROBLEMS[s.network].budget]  # elsewhere it is hardly measured
    errors = [abs(p - m) / m for s in limited for p, m in s.predictions]
    found["prediction_error"] = float(np.median(errors)) if errors else None
    found["prediction_error_after_20"] = _late_error(limited)
    for rival in sorted({name for standings in cells.values() for name in standings} - {ours}):
        pairs = [(c[ours], c[rival]) for c in cells.values() if ours in c and rival in c]
        ratios = [r for r in (time_ratio(*pair) for pair in pairs) if r is not None]
        stricter = [r for r in (own_time_ratio(*pair) for pair in pairs) if r is not None]
        wins = [beats(*pair) for pair in pairs]
        found["against"][rival] = {
            "cells": len(pairs),
            "wins": wins.count(1.0),
            "ties": wins.count(0.5),
            "losses": wins.count(0.0),
            "time_ratio": ratios,
            "own_time_ratio": stricter,
            "metric_difference": [
                a.answer - b.answer for a, b in pairs if a.answer is not None and b.answer is not None
            ],
            "test_difference": [a.test - b.test for a, b in pairs if a.test is not None and b.test is not None],
            "rival_found_nothing": sum(b.answer is None for _, b in pairs),
        }
    return found


def _late_error(standings: Sequence[Standing]) -> float | None:
    """Median over cells' predictions once 20 candidates of a job were measured."""
    errors = [abs(p - m) / m for s in standings for p, m in s.predictions[20:]]
    return float(np.median(errors)) if errors else None


def table(cells: Cells) -> str:
    """Markdown, a line per cell and contestant."""
    lines = [
        "| cell | contestant | validation | test | size | latency | tuned | over budget, tuned | measured | tuning s "
        "| on feasible | wall s | seconds to TPE's last |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (network, seed), standings in cells.items():
        rival = standings.get(RIVAL)
        for name, s in standings.items():
            ratio = None if rival is None else time_ratio(s, rival)
            reached = "" if rival is None or ratio is None else "never" if math.isinf(ratio) else f"{ratio:.3f}x"
            lines.append(
                f"| {network} {seed} | {name} | {_figure(s.answer)} of {s.uncompressed:.4f} "
                f"| {_figure(s.test)} of {_figure(s.uncompressed_test)} | {_figure(s.size_ratio)} "
                f"| {_figure(s.latency_ratio)} | {len({a.trial for a in s.tuned})} | {s.over_budget} | {s.gates} "
                f"| {s.tuning_s:.1f} | {s.feasible_share:.0%} | {s.wall_s:.0f} | {reached} |"
            )
    return "\n".join(lines)


def closing_lines(found: Mapping[str, Any]) -> str:
    lines = [
        f"\n{found['contestant']}, {found['cells']} cells: {found['over_budget_tuned']} candidates over the budget "
        f"tuned; tuning seconds on feasible candidates {spread(found['feasible_share'])}; tuning as a share of wall "
        f"{spread(found['tuning_share_of_wall'])}"
    ]
    if found["prediction_error"] is not None:
        after = found["prediction_error_after_20"]
        late = "" if after is None else f", {after:.1%} after 20 measured candidates"
        lines.append(f"  latency predictions: median error {found['prediction_error']:.1%}{late}")
    for rival, of in found["against"].items():
        lines.append(
            f"  against {rival}: better in {of['wins']} of {of['cells']} cells, equal in {of['ties']}, worse in "
            f"{of['losses']}; validation {spread(of['metric_difference'])}, test {spread(of['test_difference'])}"
        )
        lines.append(
            f"    seconds to its last best: {spread(of['time_ratio'])} of its seconds, "
            f"{spread(of['own_time_ratio'])} of those it took to get there; it found nothing in "
            f"{of['rival_found_nothing']}"
        )
    return "\n".join(lines)


def draw(cells: Cells, folder: Path) -> list[Path]:
    """A picture per network, a panel per seed: best metric within the budget over tuning seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for network in sorted({name for name, _ in cells}):
        mine = {seed: standings for (name, seed), standings in cells.items() if name == network}
        figure = Figure(figsize=(4.2 * len(mine), 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(mine), squeeze=False, sharey=True)[0]
        for axes, (seed, standings) in zip(panels, mine.items(), strict=True):
            _panel(axes, standings)
            axes.set_title(f"{network}, seed {seed}", fontsize=10)
        panels[0].set_ylabel("best metric within the budget (validation)")
        panels[-1].legend(loc="lower right", fontsize=8, frameon=False)
        paths.append(folder / f"search-{network}.png")
        figure.savefig(paths[-1], dpi=110)
    return paths


def _panel(axes: Axes, standings: Mapping[str, Standing]) -> None:
    lowest = 1.0
    for name, s in standings.items():
        if name not in COLOURS or not s.curve:
            continue
        end = max(s.seconds, s.tuning_s)
        times = [seconds for seconds, _ in s.curve] + [end]
        bests = [best for _, best in s.curve] + [s.curve[-1][1]]
        axes.step(times, bests, where="post", color=COLOURS[name], label=name, linewidth=1.6)
        lowest = min(lowest, bests[-1])
    top = max(s.uncompressed for s in standings.values())
    axes.axhline(top, color="#bbbbbb", linewidth=1, linestyle=":")
    axes.set_ylim(lowest - 1.5 * max(top - lowest, 0.01), top + 0.2 * max(top - lowest, 0.01))
    axes.set_xlabel("tuning seconds")
    axes.grid(visible=True, color="#eeeeee")


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"

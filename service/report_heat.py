"""The sensitivity of a model as a picture: layers down, techniques and levels across, loss as colour (inline SVG).

Pure geometry; the template draws it. Colours are steps of cividis, which people with and without colour vision
deficiency see alike and which grows evenly lighter (Nunez, Anderton & Renslow 2018, PLOS ONE 13(7)); numbers stand in
the titles and in the table below the picture, so that colour is never the only carrier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

ROWS = 120  # shown: those that suffer most; the rest are counted
DECADES = 3.0  # of loss that the colours span
CIVIDIS = ("#00204c", "#083370", "#35456c", "#4f576c", "#666970", "#7d7c78", "#989176", "#b4a76f", "#d2bf60", "#fee838")
NAME, CELL, GAP, TOP = 190.0, 66.0, 14.0, 46.0
TALL, LOW, MANY = 20.0, 13.0, 32  # height of a row; the lower one where there are many
NAME_LETTERS = 30
HEADING_LETTER = 7.4  # width of a bold one, at most


@dataclass(frozen=True)
class Cell:
    x: float
    y: float
    color: str
    ink: str
    text: str
    title: str
    chosen: bool


@dataclass(frozen=True)
class Label:
    x: float
    y: float
    text: str
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class HeatDrawing:
    """All that the template needs. hidden: rows left out. legend: (color, least loss that has it), mildest first."""

    width: float
    height: float
    cell_width: float
    cell_height: float
    cells: tuple[Cell, ...]
    rows: tuple[Label, ...]
    levels: tuple[Label, ...]
    techniques: tuple[Label, ...]
    legend: tuple[tuple[str, str], ...]
    hidden: int


def heat_drawing(sensitivity: Mapping[str, Any] | None, layers: Sequence[Json] = ()) -> HeatDrawing | None:
    """sensitivity: technique -> layer -> level -> {loss, metric}, as the report has it. layers: what was done to each,
    as `explanation.layers.rows`; the level next to it is outlined. None where no loss is known."""
    losses = {
        (str(technique), str(name), str(level)): float(cell["loss"])
        for technique, table in (sensitivity or {}).items()
        for name, row in (table or {}).items()
        for level, cell in (row or {}).items()
        if isinstance((cell or {}).get("loss"), int | float)
    }
    worst = max(losses.values(), default=0.0)
    if not losses or worst <= 0:
        return None
    names = _order(losses, layers)
    shown = set(sorted(names, key=lambda n: -max(v for (_, name, _), v in losses.items() if name == n))[:ROWS])
    rows = [name for name in names if name in shown]
    columns = list(dict.fromkeys((technique, level) for technique, _, level in losses))
    first = list(dict.fromkeys(technique for technique, _ in columns))
    columns.sort(key=lambda column: (first.index(column[0]), -(_number(column[1]) or 0.0)))  # mildest level first
    height = TALL if len(rows) <= MANY else LOW
    lefts: list[float] = []
    techniques: list[Label] = []
    left = NAME
    for index, (technique, _) in enumerate(columns):
        if not index or technique != columns[index - 1][0]:
            if techniques:  # the next heading begins after the last one's end
                left = max(left, techniques[-1].x + HEADING_LETTER * len(techniques[-1].text)) + GAP
            techniques.append(Label(left, 16.0, technique.replace("_", " ")))
        lefts.append(left)
        left += CELL
    chosen = {str(layer.get("name")): layer for layer in layers}
    cells = [
        _cell(lefts[c], TOP + r * height, height, name, column, losses[(column[0], name, column[1])], worst, chosen)
        for r, name in enumerate(rows)
        for c, column in enumerate(columns)
        if (column[0], name, column[1]) in losses
    ]
    return HeatDrawing(
        width=max(left, techniques[-1].x + HEADING_LETTER * len(techniques[-1].text)) + 8,
        height=TOP + len(rows) * height + 6,
        cell_width=CELL - 2,
        cell_height=height - 2,
        cells=tuple(cells),
        rows=tuple(Label(NAME - 8, TOP + (r + 0.5) * height + 3, _short(n), n) for r, n in enumerate(rows)),
        levels=tuple(
            Label(lefts[c] + CELL / 2, 36.0, level_words(technique, level))
            for c, (technique, level) in enumerate(columns)
        ),
        techniques=tuple(techniques),
        legend=tuple(
            (color, f"{worst * 10 ** (-DECADES * (1 - i / len(CIVIDIS))):.2g}") for i, color in enumerate(CIVIDIS)
        ),
        hidden=len(names) - len(rows),
    )


def level_words(technique: str, level: str) -> str:
    """`50 % kept`, `4 bits`; what is no number stays as it is."""
    value = _number(level)
    if value is None:
        return level
    if technique == "structured_pruning":
        return f"{value:.0%} kept".replace("%", " %")
    if technique == "quantization":
        return f"{value:g} bits"
    return "removed" if technique == "depth_pruning" else level


def _order(losses: Mapping[tuple[str, str, str], float], layers: Sequence[Json]) -> list[str]:
    """That of the network as far as it is known, then that of the tables."""
    measured = dict.fromkeys(name for _, name, _ in losses)
    known = [str(layer.get("name")) for layer in layers if str(layer.get("name")) in measured]
    return list(dict.fromkeys([*known, *measured]))


def _cell(
    x: float,
    y: float,
    height: float,
    name: str,
    column: tuple[str, str],
    loss: float,
    worst: float,
    chosen: Mapping[str, Json],
) -> Cell:
    share = 1 + math.log10(max(loss, 1e-30) / worst) / DECADES
    step = min(len(CIVIDIS) - 1, max(0, math.floor(share * len(CIVIDIS))))
    words = level_words(*column)
    return Cell(
        x=x,
        y=y,
        color=CIVIDIS[step],
        ink="#ffffff" if step < len(CIVIDIS) // 2 else "#10131a",
        text=f"{loss:.2g}" if height == TALL else "",
        title=f"{name}, {words}: loss {loss:.4g}",
        chosen=_is_chosen(column, chosen.get(name)),
    )


def _is_chosen(column: tuple[str, str], layer: Json | None) -> bool:
    """Whether the winner did about this to the layer."""
    level, layer = _number(column[1]), layer or {}
    before, after = [*(layer.get("channels") or ()), None, None][:2]
    if level is None:
        return False
    if column[0] == "structured_pruning" and before and after is not None:
        return bool(after < before and abs(after / before - level) <= 0.125)
    bits = [*(layer.get("bits") or ()), None, None][1]
    return column[0] == "quantization" and bits == level


def _number(level: str) -> float | None:
    try:
        return float(level)
    except ValueError:
        return None


def _short(name: str) -> str:
    """The end of a long name tells more than its beginning."""
    return name if len(name) <= NAME_LETTERS else "…" + name[-NAME_LETTERS + 1 :]

"""The picture of the trade-off shows the search that it was given, and needs nothing to be known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from service.front_plot import ACCENT, draw_front, write_front_png
from tests.service import sample_job


def test_the_winner_is_marked_in_its_colour(tmp_path: Path) -> None:
    rows = sample_job.trials()
    trials = [t.to_json() for t in rows]
    target = tuple(int(ACCENT[i : i + 2], 16) for i in (1, 3, 5))
    marked = []
    for winner in (sample_job.best(rows).trial, None):
        path = tmp_path / f"{winner}.png"
        write_front_png(path, trials, vars(sample_job.BASELINE), sample_job.BUDGET, winner)
        with Image.open(path) as image:
            assert image.width >= 1200
            pixels = np.asarray(image.convert("RGB"))
        marked.append(int((pixels == target).all(axis=2).sum()))
    assert marked[0] > 100
    assert marked[1] == 0


def test_every_kind_of_trial_has_its_own_mark() -> None:
    rows = sample_job.trials()
    figure = draw_front(
        [t.to_json() for t in rows], vars(sample_job.BASELINE), sample_job.BUDGET, sample_job.best(rows).trial
    )
    axes = figure.axes[0]
    groups = {
        str(marks.get_label()): len(np.asarray(marks.get_offsets()))
        for marks in axes.collections
        if not str(marks.get_label()).startswith("_")
    }
    inside = sum(bool(t.feasible) and t.metric is not None for t in rows)
    outside = sum(not t.feasible and t.metric is not None for t in rows)
    assert groups == {"outside the budget": outside, "inside the budget": inside - 1, "winner, trial 8": 1}
    limit = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert list(limit.get_xdata()) == [0.45, 0.45]  # type: ignore[arg-type]


def test_a_limit_in_milliseconds_becomes_a_share_of_the_baseline() -> None:
    figure = draw_front([], vars(sample_job.BASELINE), {"latency_ms": 0.4065}, None)
    assert figure.axes[0].lines[0].get_xdata()[0] == 0.5  # type: ignore[index]


def test_nothing_need_be_known(tmp_path: Path) -> None:
    write_front_png(tmp_path / "front.png", [], None, None, None)
    with Image.open(tmp_path / "front.png") as image:
        assert image.format == "PNG"

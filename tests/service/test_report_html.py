"""The report says what the search found, leaves out what it does not know, and runs nothing that it was told."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from service.report_curves import curve_drawing
from service.report_front import front_drawing
from service.report_heat import CIVIDIS, ROWS, heat_drawing
from service.report_html import render
from tests.service import sample_job

Sample = tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]


class Page(HTMLParser):
    """Text, tags and addresses of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href") or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture
def sample() -> Sample:
    rows = sample_job.trials()
    return sample_job.job_json(rows), [t.to_json() for t in rows], sample_job.report(rows)


def test_shows_the_numbers_of_the_winner(sample: Sample) -> None:
    text = Page(render(*sample)).text
    winner = sample[2]["winner"]
    assert f"Budget met by trial {winner['trial']}" in text
    assert f"{winner['metric']:.4f}" in text
    assert "0.8655" in text  # on test
    low, high = winner["latency"]["ratio_ci"]
    assert f"95 % interval {low:.3f} to {high:.3f}" in text
    assert "stage_3.0.conv_a" in text
    assert "32 of 64" in text
    assert "Example CPU @ 3.0 GHz" in text
    assert "avx2, fma" in text
    assert "12 QLinearConv" in text
    assert "-0.0141 (standard error 0.0021)" in text
    assert "tune 12 runs" in text
    assert "sensitivity 1 of 1 from cache" in text
    assert winner["sha256"] in text


def test_needs_nothing_from_elsewhere(sample: Sample) -> None:
    page = Page(render(*sample))
    assert page.addresses == []
    assert "script" not in page.tags


def test_a_nearest_miss_says_by_how_much_and_why(sample: Sample) -> None:
    job, trials, report = sample
    job["outcome"] = "nearest_miss"
    report["winner"]["violations"] = [{"field": "latency_ratio", "limit": 0.03, "value": 0.11, "excess": 0.08}]
    text = Page(render(job, trials, report)).text
    assert "Nearest miss" in text
    assert "latency_ratio 0.11 is above 0.03 by 0.08" in text
    assert "the runtime's fixed cost per operator" in text


def test_every_part_of_the_report_may_be_missing(sample: Sample) -> None:
    job, trials, report = sample
    for key in list(report):
        assert "<main>" in render(job, trials, {k: v for k, v in report.items() if k != key})
        assert "<main>" in render(job, trials, {**report, key: None})
    for part in ("winner", "baseline", "test", "parity"):
        for key in report[part]:
            assert "<main>" in render(job, trials, {**report, part: {**report[part], key: None}})


def test_explains_itself(sample: Sample) -> None:
    text = Page(render(*sample)).text
    assert "87.5 % of the evaluators' 4 min 00 s went into tuning candidates" in text
    assert "Trials tuned though over budget: 0." in text
    assert "over them when measured longer: 1 (trial 8)" in text
    assert "11 × gate: over latency_ratio, the closest by 3.1 % of the limit (trials 4, 9 and 9 more)" in text
    assert "2 × rung 0: outranked, the closest by 0.0012 of metric (trials 5, 6)" in text
    assert "trial 7 takes 0.03 ms less and has a metric of 0.8600 (-0.0060), 0.2 per ms" in text
    assert "10 % more latency (0.033 ms) would buy about +0.0040 of metric (0.121 per ms), give or take 0.001" in text
    assert "10 % more size (28 kB) would change metric by less than the prediction's own typical error" in text
    assert "median error of 6.2 % (worst 40 %), 3.1 % after the first twenty" in text
    assert "channel multiple less is better" in text
    assert "temperature may be chance" in text
    assert "stage_3.0.conv_a" in text
    assert "64 → 32" in text
    assert "best metric so far" in text


def test_every_part_of_the_explanation_may_be_missing(sample: Sample) -> None:
    job, trials, report = sample
    told = report["explanation"]
    for key, part in told.items():
        assert "<main>" in render(job, trials, {**report, "explanation": {**told, key: None}})
        for inner in part if isinstance(part, dict) else ():
            changed = {**told, key: {**part, inner: None}}
            assert "<main>" in render(job, trials, {**report, "explanation": changed}), (key, inner)


def test_a_search_without_tuning_has_nothing_to_boast_of(sample: Sample) -> None:
    job, trials, report = sample
    report["explanation"]["importance"] = {"method": None, "trials": 2, "rung": 0, "knobs": [], "note": "2 trials"}
    report["explanation"]["prices"]["worth_of_a_nat"] = None
    for point in report["explanation"]["prices"]["latency"]["predicted"]:
        point["metric_change"] = None
    text = Page(render(job, trials, report)).text
    assert "No importance is given: 2 trials." in text
    assert "lowers the predicted loss from 0.2 to 0.15 nats; too few trials" in text


def test_sensitivity_of_many_layers_is_one_bounded_picture() -> None:
    table = {
        f"block.{i}.very.long.name.of.a.convolution": {
            level: {"loss": loss * (i + 1), "metric": 0.5} for level, loss in (("0.5", 0.01), ("0.75", 0.001))
        }
        for i in range(300)
    }
    drawing = heat_drawing({"structured_pruning": table, "quantization": {"head": {"4": {"loss": 1e-6}}}})
    assert drawing is not None
    assert len(drawing.rows) == ROWS
    assert drawing.hidden == 301 - ROWS
    assert [label.text for label in drawing.levels] == ["75 % kept", "50 % kept", "4 bits"]
    assert drawing.rows[-1].title.startswith("block.299.")
    assert len({cell.y for cell in drawing.cells}) == ROWS
    assert all(0 <= cell.x <= drawing.width - drawing.cell_width for cell in drawing.cells)
    colors = [cell.color for cell in drawing.cells]
    assert CIVIDIS[-1] in colors
    assert heat_drawing({}) is None
    assert heat_drawing({"quantization": {"a": {"8": {"loss": 0.0}}}}) is None


def test_the_level_that_the_winner_took_is_outlined(sample: Sample) -> None:
    report = sample[2]
    drawing = heat_drawing(report["sensitivity"], report["explanation"]["layers"]["rows"])
    assert drawing is not None
    assert {c.title.split(":")[0] for c in drawing.cells if c.chosen} == {
        f"{name}, 50 % kept" for name in sample_job.GROUPS
    }


def test_curves_stay_inside_the_picture() -> None:
    drawing = curve_drawing("best", [[0.0, 0.5], [10.0, 0.7], [100.0, 0.9]])
    assert drawing is not None
    numbers = [float(n) for n in re.findall(r"[\d.]+", drawing.steps)]
    assert max(numbers) <= drawing.right
    assert drawing.last[0] == drawing.right
    assert curve_drawing("best", [[0.0, 0.5]]) is None
    assert curve_drawing("best", None) is None
    assert curve_drawing("flat", [[0.0, 0.5], [9.0, 0.5]]) is not None


def test_a_page_of_many_trials_stays_small() -> None:
    rows = [t.to_json() for t in sample_job.trials()]
    many = [{**rows[i % len(rows)], "number": i, "on_front": i < 300} for i in range(10_000)]
    page = render({}, many, {"winner": {"trial": 9_999}})
    assert page.count("<circle") < 2500
    assert len(page) < 1_500_000
    assert 'class="winner"' in page


def test_an_empty_report_of_an_empty_job_is_a_page() -> None:
    assert "<main>" in render({}, [], {})
    assert "<main>" in render({"id": "x", "name": "", "state": "failed", "best": None, "spec": None}, [], {})


def test_names_of_layers_and_jobs_are_text(sample: Sample) -> None:
    job, trials, report = sample
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    job["name"] = evil
    trials[0]["reason"] = evil
    report["groups"][0]["name"] = evil + '" onclick="alert(1)'
    report["notes"] = [evil]
    report["environment"] = {evil: evil}
    report["sensitivity"] = {evil: {evil: {evil: {"loss": 0.1}}}}
    page = Page(render(job, trials, report))
    assert page.addresses == []
    assert not {"script", "img"} & set(page.tags)
    assert evil in page.text


def test_front_drawing_keeps_every_point_inside_the_picture() -> None:
    rows = sample_job.trials()
    drawing = front_drawing(
        [t.to_json() for t in rows], vars(sample_job.BASELINE), sample_job.BUDGET, sample_job.best(rows).trial
    )
    assert drawing is not None
    scored = [t for t in rows if t.metric is not None]
    assert len(drawing.points) == len(scored)
    assert len(drawing.rejected) == len(rows) - len(scored)
    assert [p.kind for p in drawing.points].count("winner") == 1
    for point in drawing.points:
        assert drawing.left <= point.x <= drawing.right
        assert drawing.top <= point.y <= drawing.bottom


def test_front_drawing_of_nothing_is_none() -> None:
    assert front_drawing([], None, None, None) is None

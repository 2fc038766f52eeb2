"""The report says what the search found, leaves out what it does not know, and runs nothing that it was told."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from service.report_front import front_drawing
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

"""Measurements that outlive their job."""

from __future__ import annotations

from pathlib import Path

from search.cost_history import KEPT, CostHistory
from search.cost_prediction import Point
from search.proposals import Proposals
from tests.search.simulation import network, spec


def point(latency: float) -> Point:
    return Point((1.0, 0.5), 0.25, latency, 0.2)


def test_points_come_back_by_template_newest_last(tmp_path: Path) -> None:
    path = tmp_path / "costs" / "a.jsonl"
    assert CostHistory(path).load() == {}
    for i in range(KEPT + 5):
        CostHistory(path).add("t", point(float(i)))
    CostHistory(path).add("other", point(0.5))
    found = CostHistory(path).load()
    assert found["other"] == (point(0.5),)
    assert [p.latency_ratio for p in found["t"]] == [float(i) for i in range(5, KEPT + 5)]


def test_half_a_line_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    CostHistory(path).add("t", point(0.1))
    with path.open("a") as file:
        file.write('{"template": "t", "poi\n{"template": "t", "point": {"features": [1], "gone": 2}}\n')
    CostHistory(path).add("t", point(0.2))
    assert CostHistory(path).load() == {"t": (point(0.1), point(0.2))}


def test_what_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    CostHistory(tmp_path / "file" / "a.jsonl").add("t", point(0.1))


def test_the_next_job_begins_with_them() -> None:
    history = {"t": (point(0.1),)}
    proposals = Proposals(spec(), network(), history=history)
    assert proposals.points == history

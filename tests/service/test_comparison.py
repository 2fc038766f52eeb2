from __future__ import annotations

from typing import Any

import pytest

from search.records import Best
from service.comparison import Side, changed, compare
from service.database import Database
from service.firing import fire_due
from service.job_end import last_good
from service.settings import Settings
from tests.service import sample_job, seeded
from tests.service.api import RunningApi
from tests.service.rows import LIMITS, jobs_of
from tests.service.test_schedules import at, make

SPEC = {"model": "m1", "data": {"train": "d1"}, "budget": {"size_ratio": 0.5}, "search": {"seed": 0}}


def side(
    job: str = "j1",
    *,
    test_metric: float | None = 0.90,
    error: float | None = 0.003,
    ratio: float = 0.30,
    interval: tuple[float, float] | None = (0.29, 0.31),
    noisy: bool = False,
    size: int = 100_000,
    outcome: str = "feasible",
    spec: dict[str, Any] | None = None,
    front: tuple[tuple[int, float, float, int], ...] = (),
) -> Side:
    """front: (number, metric, ratio, size); equal numbers are equal recipes."""
    best = {"metric": 0.91, "test_metric": test_metric, "latency_ratio": ratio, "latency_ms": 1.0, "size_bytes": size}
    latency = {"ratio": ratio, "ratio_ci": interval, "noisy": noisy}
    points = [
        {"number": n, "recipe": {"steps": [n]}, "metric": m, "latency": {"ratio": r}, "size_bytes": s}
        for n, m, r, s in front
    ]
    return Side(
        job=job,
        finished_at=None,
        outcome=outcome,
        spec=spec or SPEC,
        best=best,
        report={"test": {"difference_error": error}, "winner": {"latency": latency}},
        front=points,
    )


@pytest.mark.parametrize(
    ("after", "better", "worse"),
    [
        ({}, [], []),
        ({"test_metric": 0.908}, [], []),  # 0.008 < 2 * sqrt(2) * 0.003
        ({"test_metric": 0.909}, ["metric"], []),
        ({"test_metric": 0.891}, [], ["metric"]),
        ({"test_metric": 0.50, "error": None}, [], []),
        ({"test_metric": None}, [], []),
        ({"ratio": 0.28, "interval": (0.27, 0.285)}, ["latency_ratio"], []),
        ({"ratio": 0.28, "interval": (0.27, 0.29)}, [], []),
        ({"ratio": 0.33, "interval": (0.32, 0.34)}, [], ["latency_ratio"]),
        ({"ratio": 0.90, "interval": None}, [], []),
        ({"ratio": 0.90, "interval": (0.89, 0.91), "noisy": True}, [], []),
        ({"size": 100_500}, [], []),
        ({"size": 100_501}, [], ["size_bytes"]),
        ({"size": 99_000, "test_metric": 0.85}, ["size_bytes"], ["metric"]),
    ],
)
def test_only_what_noise_does_not_explain_is_better_or_worse(
    after: dict[str, Any], better: list[str], worse: list[str]
) -> None:
    found = compare(side(), side("j2", **after))
    assert (found["job"], found["better"], found["worse"]) == ("j1", better, worse)
    assert found["regression"] is bool(worse)


def test_a_metric_on_other_rows_has_no_verdict() -> None:
    other = {**SPEC, "data": {"train": "d2"}}
    found = compare(side(), side(test_metric=0.5, spec=other))
    assert (found["metric"]["verdict"], found["metric"]["noise"], found["worse"]) == ("unknown", None, [])
    assert found["metric"]["delta"] == pytest.approx(-0.4)
    assert found["changed"] == ["data.train"]


@pytest.mark.parametrize(
    ("before", "after", "newly_infeasible", "newly_feasible"),
    [
        ("feasible", "feasible", False, False),
        ("feasible", "nearest_miss", True, False),
        ("nearest_miss", "feasible", False, True),
        ("nearest_miss", "nearest_miss", False, False),
    ],
)
def test_a_budget_that_is_no_longer_met_is_a_regression(
    before: str, after: str, newly_infeasible: bool, newly_feasible: bool
) -> None:
    found = compare(side(outcome=before), side(outcome=after))
    assert (found["newly_infeasible"], found["newly_feasible"]) == (newly_infeasible, newly_feasible)
    assert found["regression"] is newly_infeasible


def test_fronts_are_compared_by_recipe_and_by_what_beats_what() -> None:
    before = side(front=((1, 0.90, 0.3, 100), (2, 0.80, 0.2, 50)))
    after = side(front=((1, 0.90, 0.3, 100), (3, 0.85, 0.2, 50), (4, 0.70, 0.4, 60)))
    assert compare(before, after)["front"] == {
        "before": 2,
        "after": 3,
        "new": [3, 4],
        "gone": [2],
        "beats": 1,  # 3 beats 2
        "beaten": 1,  # 4 is beaten by 2
    }


def test_where_a_search_began_is_no_change_of_its_specification() -> None:
    assert changed(SPEC, {**SPEC, "search": {"seed": 0, "start_from": {"job": "j1"}}}) == []
    assert changed(SPEC, {**SPEC, "search": {"seed": 1}, "model": "m2", "extra": 1}) == [
        "extra",
        "model",
        "search.seed",
    ]


def night(database: Database, settings: Settings, moment: str, best: Best | None = None) -> str:
    """One scheduled job with trials, artifacts and a report."""
    (job_id,) = fire_due(database, LIMITS, at(moment))
    ledger = seeded.coordinator(database, settings.data_dir)
    rows = sample_job.trials()
    seeded.search_some(ledger, rows)
    if best is not None:
        ledger.put_best(best)
    ledger.finish("succeeded", outcome="feasible", reason=None, report=sample_job.report(rows))
    return job_id


def test_the_second_night_is_compared_with_the_first(database: Database, settings: Settings) -> None:
    make(database)
    first = night(database, settings, "2026-03-01 03:00")
    assert jobs_of(database).get(first).previous is None
    second = night(database, settings, "2026-03-02 03:00")
    row = jobs_of(database).get(second)
    assert (row.previous["job"], row.previous["better"], row.previous["worse"]) == (first, [], [])
    assert row.previous["front"]["new"] == row.previous["front"]["gone"] == []
    assert row.previous["front"]["before"] == row.previous["front"]["after"] > 1
    with database.read() as connection:
        found = last_good(connection, row.schedule_id)
        assert found is not None and found.id == second


def test_the_comparison_is_shown_with_job_report_and_history(sqlite_api: RunningApi) -> None:
    database, settings = sqlite_api.database, sqlite_api.settings
    made = make(database)
    first = night(database, settings, "2026-03-01 03:00")
    best = sample_job.best(sample_job.trials())
    second = night(database, settings, "2026-03-02 03:00", Best(**{**best.__dict__, "size_bytes": 10}))
    client = sqlite_api.client
    previous = client.get(f"/v1/jobs/{second}").json()["previous"]
    assert (previous["job"], previous["better"]) == (first, ["size_bytes"])
    assert client.get(f"/v1/jobs/{second}/report").json()["previous"] == previous
    assert client.get(f"/v1/jobs/{first}/report").json()["previous"] is None
    runs = client.get(f"/v1/schedules/{made.id}/runs").json()["items"]
    assert [run["previous"] for run in runs] == [previous, None]
    assert [run["best"]["size_bytes"] for run in runs] == [10, best.size_bytes]
    page = client.get(f"/v1/jobs/{second}/report", headers={"Accept": "text/html"}).text
    assert "Against the run before" in page
    assert first in page
    assert "Against the run before" not in client.get(f"/v1/jobs/{first}/report", headers={"Accept": "text/html"}).text

"""Numbers and recipes in words."""

from __future__ import annotations

import pytest

from service import wording
from tests.service import sample_job


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (999, "999 B"), (1_000, "1.0 kB"), (236_728, "236.7 kB"), (1_162_740, "1.16 MB"), (2e9, "2.00 GB")],
)
def test_sizes_are_decimal(value: float | None, text: str) -> None:
    assert wording.file_size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.25, "250 ms"), (59.94, "59.9 s"), (61, "1 min 01 s"), (3 * 3600 + 120, "3 h 02 min")],
)
def test_durations(value: float | None, text: str) -> None:
    assert wording.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.88, "0.8800"),
        (0.0, "0.0000"),
        (-18.20446, "-18.2045"),
        (-15_230.44, "-15,230.4"),
        (-3.1e-6, "-3.1e-06"),
    ],
)
def test_metrics_of_every_size(value: float | None, text: str) -> None:
    assert wording.metric(value) == text


def test_recipes() -> None:
    groups = [{"name": n, "size": s} for n, s in sample_job.GROUPS.items()]
    assert wording.recipe(None) == "–"
    assert wording.recipe({"version": 1, "steps": []}) == "as uploaded"
    assert wording.recipe(sample_job.recipe(None)) == "int8"
    assert wording.recipe(sample_job.recipe(0.5, 4096)) == "pruned 4 groups, distilled on 4.1 k samples, int8"
    assert wording.recipe(sample_job.recipe(0.5), groups) == "pruned 4 groups (keeps 50%), int8"


def test_budget_lines_cover_every_limit_that_is_set() -> None:
    budget = {"latency_ms": None, "latency_ratio": 0.45, "size_mb": 0.3, "size_ratio": None, "max_metric_drop": 0.01}
    best = {"latency_ratio": 0.46, "size_bytes": 290_000, "metric": 0.875}
    lines = {line.field: line for line in wording.budget_lines(budget, {"metric": 0.88}, best)}
    assert {name: line.state for name, line in lines.items()} == {
        "latency_ratio": "over",
        "size_mb": "within",
        "max_metric_drop": "within",
    }
    assert lines["size_mb"].value_text == "290.0 kB"
    assert lines["size_mb"].limit_text == "300.0 kB"
    assert lines["max_metric_drop"].value == pytest.approx(0.005)


def test_budget_lines_without_a_candidate_show_the_limit() -> None:
    (line,) = wording.budget_lines({"size_ratio": 0.25}, None, None)
    assert (line.state, line.value, line.used, line.limit_text) == ("unknown", None, None, "0.250×")


def test_a_better_metric_is_no_drop() -> None:
    (line,) = wording.budget_lines({"max_metric_drop": 0.0}, {"metric": 0.8}, {"metric": 0.9})
    assert (line.value, line.state, line.used) == (0.0, "within", 0.0)


def test_steps_without_words_of_their_own_say_how_much_they_do() -> None:
    steps = [{"technique": "weight_sharing", "bits": 4, "layers": []}, {"technique": "batch_norm_folding"}]
    assert wording.recipe({"steps": steps}) == "weight sharing (bits 4), batch norm folding"

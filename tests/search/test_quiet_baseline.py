"""What counts as a quiet machine, and what a measurement does on a noisy one."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compressors.latency import LatencyResult
from search import measuring
from search.measuring import TRIES, measure_quietly
from search.quiet_baseline import QuietBaseline

RESULT = LatencyResult(
    p50_ms=0.3,
    p90_ms=0.4,
    baseline_p50_ms=0.77,
    baseline_p90_ms=0.8,
    ratio=0.4,
    ratio_ci=(0.39, 0.41),
    rounds=21,
    left_out=0,
    runs=200,
    repeats=1,
    noisy=False,
)


def test_the_lowest_tenth_is_quiet(tmp_path: Path) -> None:
    quiet = QuietBaseline(tmp_path / "q" / "x.json")
    assert quiet.known_ms is None
    assert quiet.is_quiet(99.0)
    for value in [0.60, *[0.77] * 15, *[0.95] * 8]:
        quiet.note(value)
    assert quiet.known_ms == 0.77, "one fast moment is not the rule"
    assert quiet.is_quiet(0.80)
    assert not quiet.is_quiet(0.95)
    assert QuietBaseline(tmp_path / "q" / "x.json").known_ms == 0.77


def test_only_the_latest_measurements_count_and_damage_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    quiet = QuietBaseline(path)
    for _ in range(100):
        quiet.note(0.5)
    for _ in range(64):
        quiet.note(0.9)
    assert quiet.known_ms == 0.9
    path.write_text("[1, ")
    assert quiet.known_ms is None


def bench(tmp_path: Path) -> Any:
    @contextmanager
    def exclusive() -> Any:
        yield

    return SimpleNamespace(
        session=lambda path: path,
        latency_inputs=(),
        quiet_baseline=QuietBaseline(tmp_path / "x.json"),
        slot=SimpleNamespace(exclusive=exclusive),
        seed=0,
    )


def test_a_noisy_measurement_is_tried_again_and_the_quietest_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = [replace(RESULT, noisy=True, baseline_p50_ms=b, ratio=r) for b, r in ((0.96, 0.49), (0.83, 0.42))]
    answers = iter(loaded)
    monkeypatch.setattr(measuring, "measure", lambda *_, **__: next(answers))
    monkeypatch.setattr(measuring, "PAUSE_SECONDS", 0.0)
    found = measure_quietly(bench(tmp_path), tmp_path, tmp_path)
    assert len(loaded) == TRIES
    assert found.noisy
    assert found.ratio == 0.42


def test_a_quiet_measurement_is_taken_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([replace(RESULT, noisy=True), RESULT])
    monkeypatch.setattr(measuring, "measure", lambda *_, **__: next(answers))
    monkeypatch.setattr(measuring, "PAUSE_SECONDS", 0.0)
    assert measure_quietly(bench(tmp_path), tmp_path, tmp_path) == RESULT

"""The comparison of searches: what its figures mean, and one miniature run of its contestants."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks import search_contest
from benchmarks import search_efficiency as command
from benchmarks.search_contest import Attempt, Recorder, Standing, TuningClock
from benchmarks.search_figures import beats, by_cell, own_time_ratio, summary, table, time_ratio
from benchmarks.search_ours import ABLATIONS, CLOSING_SECONDS, CLOSING_SHARE, Ablation, max_seconds
from search import stage_gate
from search.coordinator import Coordinator
from search.inputs import JobInputs, ModelFile
from search.work import Gated, GateWork, Result, ScoreWork, Sensed, Work
from tests.search.simulation import SPEED, Network, Outcome, simulate, spec


def attempt(trial: int, at: float, seconds: float, *, feasible: bool = True, metric: float | None = None) -> Attempt:
    return Attempt(
        trial=trial, at=at, seconds=seconds, feasible=feasible, metric=metric, size_ratio=0.1, latency_ratio=0.5
    )


def standing(name: str, *attempts: Attempt, **changes: Any) -> Standing:
    recorder = Recorder(TuningClock())
    for one in attempts:
        recorder.note(one)
    fields: dict[str, Any] = {
        "network": "digits-mlp",
        "seed": 0,
        "contestant": name,
        "seconds": 10.0,
        "uncompressed": 0.97,
        "uncompressed_test": 0.96,
        "attempts": attempts,
        "curve": tuple(recorder.curve),
        "answer": recorder.curve[-1][1] if recorder.curve else None,
        "test": None,
        "size_ratio": 0.1,
        "latency_ratio": 0.5,
        "gates": len(attempts),
        "predictions": (),
        "wall_s": 20.0,
        "processor_s": 15.0,
        "reason": "",
    }
    return Standing(**{**fields, **changes})


RIVAL = standing(
    "tpe",
    attempt(0, 1.0, 1.0, metric=0.90),
    attempt(1, 4.0, 3.0, feasible=False, metric=0.99),
    attempt(2, 8.0, 4.0, metric=0.95),
    attempt(3, 10.0, 2.0, metric=0.94),
)


def test_a_curve_is_of_what_meets_the_budget() -> None:
    assert RIVAL.curve == ((1.0, 0.90), (8.0, 0.95))
    assert RIVAL.over_budget == 1
    assert RIVAL.feasible_share == pytest.approx(0.7)
    assert RIVAL.reached(0.95) == 8.0
    assert RIVAL.reached(0.96) is None


def test_a_trial_that_is_tuned_further_counts_with_its_newest_file() -> None:
    again = standing("bantam", attempt(0, 1.0, 1.0, metric=0.95), attempt(0, 2.0, 1.0, metric=0.93))
    assert again.curve == ((1.0, 0.95), (2.0, 0.93))
    assert again.answer == 0.93


def test_time_is_measured_until_the_rivals_last_best() -> None:
    fast = standing("bantam", attempt(0, 0.0, 0.0, metric=0.5), attempt(1, 2.0, 2.0, metric=0.96))
    assert time_ratio(fast, RIVAL) == pytest.approx(0.2)
    assert own_time_ratio(fast, RIVAL) == pytest.approx(0.25)
    slow = standing("bantam", attempt(0, 2.0, 2.0, metric=0.94))
    assert time_ratio(slow, RIVAL) == math.inf
    nothing = standing("random", attempt(0, 2.0, 2.0, feasible=False, metric=0.99))
    assert nothing.answer is None
    assert time_ratio(fast, nothing) is None
    assert (beats(fast, RIVAL), beats(RIVAL, RIVAL), beats(slow, RIVAL), beats(slow, nothing)) == (1.0, 0.5, 0.0, 1.0)


def test_a_summary_counts_wins_and_losses() -> None:
    cells = by_cell(
        [
            standing("bantam", attempt(0, 2.0, 2.0, metric=0.96)),
            RIVAL,
            standing("bantam", attempt(0, 2.0, 2.0, metric=0.93), seed=1),
            standing("tpe", attempt(0, 2.0, 2.0, metric=0.94), seed=1),
        ]
    )
    against = summary(cells)["against"]["tpe"]
    assert (against["wins"], against["ties"], against["losses"]) == (1, 0, 1)
    assert against["time_ratio"] == [pytest.approx(0.2), math.inf]
    assert "| digits-mlp 1 | bantam | 0.9300 of 0.9700 |" in table(cells)


@pytest.mark.parametrize("tuning", [2.0, 16.0, 20.0, 240.0])
def test_a_job_may_tune_for_the_seconds_of_the_others(tuning: float) -> None:
    whole = max_seconds(tuning)
    assert whole - min(CLOSING_SHARE * whole, CLOSING_SECONDS) == pytest.approx(tuning)


def test_standings_survive_being_written(tmp_path: Path) -> None:
    RIVAL.write(tmp_path / "tpe.json")
    assert Standing.from_json(json.loads((tmp_path / "tpe.json").read_text())) == RIVAL


def test_contestants_play_by_the_same_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A whole comparison with little more than a second of tuning, in this process."""
    cell = command.Cell(
        network="digits-mlp",
        seed=0,
        contestants=("bantam", "tpe"),
        output=tmp_path,
        data=tmp_path,
        seconds=1.2,
        samples=12_000,
    )
    command.play(cell)
    found = {name: Standing.from_json(json.loads(cell.path(name).read_text())) for name in cell.contestants}
    for name, one in found.items():
        assert one.seed == 0 and one.contestant == name
        assert one.tuned, f"{name} tuned nothing"
        assert 0.5 < one.tuning_s < 5.0
        assert one.attempts[-1].at == pytest.approx(one.tuning_s, abs=1e-3)
        assert one.curve == tuple(sorted(one.curve))
        assert one.answer is not None and 0.2 < one.answer <= 1.0
        assert one.size_ratio is not None and one.size_ratio <= 0.0145
    assert found["bantam"].over_budget == 0
    before = capsys.readouterr().out
    command.play(cell)  # everything has its standing
    assert "digits-mlp 0 bantam" in before
    assert not capsys.readouterr().out
    command.report([cell], tmp_path, tmp_path / "pictures")
    printed = capsys.readouterr().out
    assert "against tpe" in printed
    assert (tmp_path / "pictures" / "search-digits-mlp.png").stat().st_size > 10_000
    assert json.loads((tmp_path / "summary.json").read_text())["all"][0]["over_budget_tuned"] == 0


# --- ablations, on a made-up network in virtual time ------------------------------------------------------------------


@dataclass
class Played:
    """gates: what the evaluator was asked for and answered. tuned: works that tuned."""

    outcome: Outcome
    gates: list[tuple[GateWork, Gated]]
    tuned: list[ScoreWork]
    sensed: list[Sensed]


def play(name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    """A whole search under an ablation, or as it is."""
    network = Network()
    monkeypatch.setattr(search_contest, "make_evaluator", lambda *_, **__: lambda work: network.evaluate(work)[0])
    inputs = JobInputs(
        job_id="j",
        spec=spec(),
        model=ModelFile(path=tmp_path, sha256="0", description=cast(Any, None)),
        datasets={},
        workspace=tmp_path,
        cache=tmp_path,
    )
    ablation = ABLATIONS[name] if name else Ablation()
    evaluate = ablation.evaluator(inputs, TuningClock())
    played = Played(cast(Any, None), [], [], [])

    def once(work: Work) -> tuple[Result, float]:
        result, seconds = evaluate(work), 1.0
        if isinstance(work, GateWork) and isinstance(result, Gated):
            played.gates.append((work, result))
        if isinstance(work, ScoreWork) and work.stop > work.start:
            played.tuned.append(work)
            seconds = (work.stop - work.start) / SPEED
        if isinstance(result, Sensed):
            played.sensed.append(result)
        return result, seconds

    with ablation.around(4000, 600.0):
        played.outcome = simulate(Coordinator(inputs.spec), network, evaluate=once)
    assert played.tuned and played.outcome.answer is not None
    return played


def test_without_rungs_everybody_is_tuned_equally_long_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, ablated = (play(name, tmp_path, monkeypatch).tuned for name in (None, "without-rungs"))
    assert len({work.stop - work.start for work in whole}) > 1
    assert {(work.start, work.stop) for work in ablated} == {(0, 4000)}
    assert len({work.trial for work in ablated}) == len(ablated) > 10


def test_without_a_solver_all_groups_keep_one_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spreads(name: str | None) -> list[int]:
        shaped = [g.recipe for w, g in play(name, tmp_path, monkeypatch).gates if w.allocation is not None]
        keeps = [[*r.pruning.keep.values()] for r in shaped if r.pruning is not None and r.pruning.keep]
        return [max(keep) - min(keep) if len(keep) == 6 else 32 - min(keep) for keep in keeps]

    assert max(spreads(None)) > 0
    assert set(spreads("without-solver")) == {0}


def test_without_a_solver_candidates_meet_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gates = play("without-solver", tmp_path, monkeypatch).gates
    ratios = [g.latency.ratio for w, g in gates if w.allocation is not None]
    assert max(ratios) <= 0.4
    assert min(ratios) > 0.1  # counts are multiples of 16 in some, and 16 of 32 is all that is left


def test_without_sensitivity_groups_are_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(name: str | None) -> set[tuple[float, ...]]:
        entries = [e for s in play(name, tmp_path, monkeypatch).sensed for e in s.entries]
        names = {e.name for e in entries}
        return {tuple(e.loss for e in sorted(entries, key=lambda e: e.level) if e.name == n) for n in names}

    assert len(losses(None)) == 6
    assert losses("without-sensitivity") == {(0.75, 0.5, 0.25)}


def test_without_a_cache_no_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert len(play("without-cache", tmp_path, monkeypatch).gates) > 10
    assert not list(tmp_path.iterdir())


def test_without_repair_the_first_shape_counts(tmp_path: Path) -> None:
    with ABLATIONS["without-repair"].around(4000, 600.0):
        assert stage_gate.ATTEMPTS == 1
    assert stage_gate.ATTEMPTS > 1

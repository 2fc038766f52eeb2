"""What every implementation of `search.ledger.Ledger` must do. Subclass it and provide the fixture `job`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from search.ledger import Directive, LeaseLost, Ledger, Released
from search.records import Baseline, Best, Latency, Progress, Score, Stage, Trial


class LeasedJob(Protocol):
    """One job on the store under test, seen from outside the ledger."""

    def coordinator(self, stopping: Callable[[], bool] = lambda: False) -> Ledger:
        """A new coordinator's ledger; those made before lose their lease."""

    def wish(self, directive: Directive) -> None:
        """What the job's owner asks for."""

    def revision(self) -> int: ...

    def trial_revisions(self) -> dict[int, int]: ...

    def state(self) -> str: ...

    def artifact(self, name: str) -> bytes: ...

    def log_lines(self) -> list[tuple[str, str, int | None]]: ...

    def shown(self, field: str) -> object:
        """progress, baseline, best or report as the store keeps it."""


def a_trial(number: int, state: str = "completed", metric: float | None = 0.5) -> Trial:
    return Trial(
        number=number,
        state=state,  # type: ignore[arg-type]
        knobs={"a": 0.25, "b": ["x", 1]},
        recipe={"version": 1, "steps": []},
        metric=metric,
        latency=Latency(p50_ms=1.0, p90_ms=2.0, ratio=0.5, ratio_ci=(0.4, 0.6), repeats=3),
        stages=(Stage(name="shape", seconds=0.5, cached=True),),
        elapsed_s=12.5,
        hypervolume=0.25,
        scores=(Score(rung=1, samples=64, metric=0.5, feasible=True, elapsed_s=12.5, hypervolume=0.25),),
    )


class LedgerConformance:
    @pytest.fixture
    def ledger(self, job: LeasedJob) -> Ledger:
        return job.coordinator()

    def test_a_trial_reads_back_as_it_was_written(self, ledger: Ledger) -> None:
        ledger.put_trial(a_trial(0))
        assert list(ledger.trials()) == [a_trial(0)]

    def test_trials_come_in_order_of_their_number(self, ledger: Ledger) -> None:
        for number in (2, 0, 10, 1):
            ledger.put_trial(a_trial(number))
        assert [t.number for t in ledger.trials()] == [0, 1, 2, 10]

    def test_a_trial_is_replaced_not_duplicated(self, ledger: Ledger) -> None:
        ledger.put_trial(a_trial(3, "running", None))
        ledger.put_trial(a_trial(3, "completed", 0.75))
        assert list(ledger.trials()) == [a_trial(3, "completed", 0.75)]

    def test_each_change_of_a_trial_raises_the_revision_by_one(self, ledger: Ledger, job: LeasedJob) -> None:
        before = job.revision()
        ledger.put_trial(a_trial(0, "running"))
        ledger.put_trial(a_trial(1, "running"))
        ledger.put_trial(a_trial(0))
        assert job.revision() == before + 3
        assert job.trial_revisions() == {1: before + 2, 0: before + 3}

    def test_the_front_is_exactly_what_was_put_last(self, ledger: Ledger) -> None:
        for number in range(4):
            ledger.put_trial(a_trial(number))
        ledger.put_front([0, 1])
        ledger.put_front([1, 3])
        assert [t.number for t in ledger.trials() if t.on_front] == [1, 3]

    def test_only_trials_whose_place_on_the_front_changes_get_a_new_revision(
        self, ledger: Ledger, job: LeasedJob
    ) -> None:
        for number in range(4):
            ledger.put_trial(a_trial(number))
        ledger.put_front([0, 1])
        before = job.trial_revisions()
        ledger.put_front([1, 3])
        after = job.trial_revisions()
        assert {n for n in before if before[n] != after[n]} == {0, 3}
        assert len(set(after.values())) == 4, "a page that ends between two trials must not lose the second"
        assert job.revision() == max(after.values())

    def test_everything_visible_raises_the_revision(self, ledger: Ledger, job: LeasedJob, tmp_path: Path) -> None:
        file = tmp_path / "model.onnx"
        file.write_bytes(b"onnx")
        seen = [job.revision()]
        writes: list[Callable[[], None]] = [
            lambda: ledger.put_baseline(
                Baseline(metric=0.9, latency_ms=1.0, size_bytes=10, macs=5, parameters=2),
            ),
            lambda: ledger.put_best(
                Best(
                    trial=0,
                    metric=0.8,
                    latency_ms=0.5,
                    latency_ratio=0.5,
                    size_bytes=5,
                    size_ratio=0.5,
                    feasible=True,
                ),
            ),
            lambda: ledger.put_progress(Progress(stage="search", finished=1, planned=4)),
            lambda: ledger.put_artifact("winner", file),
            lambda: ledger.log("warning", "careful", 0),
            lambda: ledger.finish("succeeded", outcome="feasible", reason=None, report={"a": [1, None]}),
        ]
        for write in writes:
            write()
            seen.append(job.revision())
        assert seen == sorted(set(seen)), "strictly rising"
        assert job.shown("baseline") == {
            "metric": 0.9,
            "latency_ms": 1.0,
            "size_bytes": 10,
            "macs": 5,
            "parameters": 2,
        }
        assert job.shown("report") == {"a": [1, None]}
        assert job.log_lines() == [("warning", "careful", 0)]
        assert job.artifact("winner") == b"onnx"

    def test_the_later_artifact_of_a_name_wins(self, ledger: Ledger, job: LeasedJob, tmp_path: Path) -> None:
        for content in (b"first", b"second"):
            file = tmp_path / "model.onnx"
            file.write_bytes(content)
            ledger.put_artifact("winner", file)
        assert job.artifact("winner") == b"second"

    def test_directive_is_the_owners_wish(self, ledger: Ledger, job: LeasedJob) -> None:
        assert ledger.directive() == "run"
        job.wish("pause")
        assert ledger.directive() == "pause"
        job.wish("cancel")
        assert ledger.directive() == "cancel"

    def test_a_worker_that_is_told_to_stop_learns_it_from_directive(self, job: LeasedJob) -> None:
        told: list[bool] = []
        ledger = job.coordinator(stopping=lambda: bool(told))
        assert ledger.directive() == "run"
        told.append(True)
        with pytest.raises(Released):
            ledger.directive()

    def test_a_stale_coordinator_is_refused_and_changes_nothing(self, job: LeasedJob, tmp_path: Path) -> None:
        file = tmp_path / "model.onnx"
        file.write_bytes(b"stale")
        stale = job.coordinator()
        stale.put_trial(a_trial(0))
        fresh = job.coordinator()
        before = job.revision()
        writes: list[Callable[[], object]] = [
            stale.directive,
            lambda: stale.put_trial(a_trial(0, "failed")),
            lambda: stale.put_trial(a_trial(7)),
            lambda: stale.put_front([0]),
            lambda: stale.put_baseline(Baseline(metric=0.0, latency_ms=1, size_bytes=1, macs=1, parameters=1)),
            lambda: stale.put_progress(Progress(stage="search")),
            lambda: stale.put_artifact("winner", file),
            lambda: stale.log("info", "still here"),
            lambda: stale.finish("failed", outcome=None, reason="no", report=None),
        ]
        for write in writes:
            with pytest.raises(LeaseLost):
                write()
        assert job.revision() == before
        assert list(fresh.trials()) == [a_trial(0)]
        assert job.log_lines() == []
        assert fresh.directive() == "run"

    def test_a_new_coordinator_finds_all_trials(self, job: LeasedJob) -> None:
        first = job.coordinator()
        for number in range(3):
            first.put_trial(a_trial(number))
        assert [t.number for t in job.coordinator().trials()] == [0, 1, 2]

    def test_elapsed_seconds_add_up_over_coordinators(self, job: LeasedJob) -> None:
        assert job.coordinator().elapsed_s() == 0
        second = job.coordinator().elapsed_s()
        third = job.coordinator().elapsed_s()
        assert 0 <= second <= third < 60

    def test_finish_gives_the_lease_back(self, ledger: Ledger, job: LeasedJob) -> None:
        ledger.finish("succeeded", outcome="nearest_miss", reason="misses", report={})
        assert job.state() == "succeeded"
        with pytest.raises(LeaseLost):
            ledger.log("info", "too late")

    def test_no_trial_of_an_ended_job_stays_running(self, ledger: Ledger, job: LeasedJob) -> None:
        ledger.put_trial(a_trial(0))
        ledger.put_trial(a_trial(1, "running", None))
        ledger.finish("cancelled", outcome=None, reason="cancelled by its owner", report=None)
        revisions = job.trial_revisions()
        assert revisions[1] > revisions[0]

    def test_a_job_cancelled_while_it_pauses_ends_cancelled(self, ledger: Ledger, job: LeasedJob) -> None:
        job.wish("pause")
        assert ledger.directive() == "pause"
        job.wish("cancel")
        ledger.finish("paused", outcome=None, reason=None, report=None)
        assert job.state() == "cancelled"

    def test_numbers_that_json_lacks_become_null(self, ledger: Ledger) -> None:
        ledger.put_trial(a_trial(0, metric=float("nan")))
        assert [t.metric for t in ledger.trials()] == [None]

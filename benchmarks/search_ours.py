"""Bantam's own search as a contestant: a whole job in this process, its seconds counted on the tuning clock.

Ablations replace one ingredient each, from outside: what they switch off cannot be switched off in the product.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from unittest.mock import patch

from benchmarks.search_contest import Attempt, Evaluator, InProcess, Recorder, Standing, TuningClock
from compressors.recipe import StructuredPruning
from search import rounds, run, stage_gate
from search.feasibility import Limits
from search.inputs import JobInputs
from search.ledger import ArtifactName, Directive, LogLevel
from search.profile import Profile
from search.promotion import Promotion, rung_of
from search.records import Baseline, Best, JobState, Outcome, Progress, Trial
from search.rungs import RungPlan
from search.solver import SMALLEST_SHARE
from search.spec import SearchSpec
from search.work import Gated, GateWork, Profiled, ProfileWork, Result, Sensed, Work

MAX_TRIALS = 200  # the clock decides when a search ends
HALVINGS = 7  # of the interval of shares, where one share for all groups takes the solver's place
CLOSING_SHARE, CLOSING_SECONDS = 0.2, 4.0  # of max_seconds, what a job keeps for confirming, whichever is less


def max_seconds(tuning: float) -> float:
    """For a job that tunes until `tuning` seconds and keeps what it keeps for confirming, which costs nothing here."""
    return min(tuning / (1 - CLOSING_SHARE), tuning + CLOSING_SECONDS)


class CurveLedger:
    """A ledger that keeps the rows in memory and notes when each of them got better."""

    def __init__(self, evaluate: Evaluator) -> None:
        self._evaluate = evaluate
        self.recorder = Recorder(evaluate.clock)
        self.rows: dict[int, Trial] = {}
        self.baseline: Baseline | None = None
        self.best: Best | None = None
        self.finished: Mapping[str, Any] = {}
        self.logs: list[str] = []
        self._noted: dict[int, tuple[Any, ...]] = {}

    def directive(self) -> Directive:
        return "run"

    def elapsed_s(self) -> float:
        return 0.0

    def trials(self) -> Sequence[Trial]:
        return []

    def put_trial(self, trial: Trial) -> None:
        self.rows[trial.number] = trial
        seen = (trial.fidelity, trial.metric, trial.latency is not None and trial.state == "gated")
        known = trial.metric is not None or trial.state == "gated"
        if not known or trial.state == "running" or trial.latency is None or self._noted.get(trial.number) == seen:
            return
        self._noted[trial.number] = seen
        self.recorder.note(
            Attempt(
                trial=trial.number,
                at=self._evaluate.clock.now(),
                seconds=self._evaluate.spent(trial.number),
                feasible=not trial.violations,
                metric=trial.metric,
                size_ratio=trial.size_ratio or 0.0,
                latency_ratio=trial.latency.ratio,
                origin=trial.origin,
            )
        )

    def put_front(self, numbers: Sequence[int]) -> None:
        """Not looked at."""

    def put_baseline(self, baseline: Baseline) -> None:
        self.baseline = self.baseline or baseline

    def put_best(self, best: Best) -> None:
        self.best = best

    def put_progress(self, progress: Progress) -> None:
        """Not looked at."""

    def put_artifact(self, name: ArtifactName, path: Path) -> None:
        """Stays in the workspace."""

    def log(self, level: LogLevel, message: str, trial: int | None = None) -> None:
        if level != "info":
            self.logs.append(f"{level}, trial {trial}: {message}")

    def finish(
        self, state: JobState, *, outcome: Outcome | None, reason: str | None, report: Mapping[str, Any] | None
    ) -> None:
        self.finished = {"state": state, "outcome": outcome, "reason": reason, "report": report}


def run_ours(
    inputs: JobInputs, clock: TuningClock, name: str, *, seconds: float, evaluator: type[Evaluator] = Evaluator
) -> Standing:
    """The job of `inputs` from its profile to its confirmed answer. Raises RuntimeError when the job failed."""
    wall, processor = time.monotonic(), time.process_time()
    evaluate = evaluator(inputs, clock)
    ledger = CurveLedger(evaluate)
    with patch.object(run, "time", SimpleNamespace(monotonic=clock.now)):
        run.run_job(inputs, ledger, make_executor=lambda _: InProcess(evaluate))
    if ledger.finished.get("state") != "succeeded":
        raise RuntimeError(f"{name}: {ledger.finished.get('reason')}; {ledger.logs}")
    assert ledger.baseline is not None and ledger.best is not None
    feasible = ledger.finished["outcome"] == "feasible"
    return Standing(
        network=inputs.spec.model,
        seed=inputs.spec.search.seed,
        contestant=name,
        seconds=seconds,
        uncompressed=ledger.baseline.metric,
        uncompressed_test=ledger.finished["report"]["test"]["baseline_metric"],
        attempts=tuple(ledger.recorder.attempts),
        curve=tuple(ledger.recorder.curve),
        answer=ledger.best.metric if feasible else None,
        test=ledger.best.test_metric if feasible else None,
        size_ratio=ledger.best.size_ratio,
        latency_ratio=ledger.best.latency_ratio,
        gates=evaluate.gates,
        predictions=tuple(evaluate.predictions),
        wall_s=time.monotonic() - wall,
        processor_s=time.process_time() - processor,
        reason=str(ledger.finished["reason"]),
    )


def strategies() -> tuple[str, ...]:
    """Those that this version of the search has."""
    return get_args(SearchSpec.model_fields["strategy"].annotation)


# --- ablations --------------------------------------------------------------------------------------------------------


class UniformSensitivity(Evaluator):
    """Every group suffers alike: what is measured of a group says only which share of it went."""

    def __call__(self, work: Work) -> Result:
        result = super().__call__(work)
        if not isinstance(result, Sensed):
            return result
        entries = (
            replace(entry, loss=1 - entry.level if entry.technique == "structured_pruning" else 2.0**-entry.level)
            for entry in result.entries
        )
        return replace(result, entries=tuple(entries))


class ProportionalScaling(Evaluator):
    """One share of channels for all groups takes the solver's place, fitted to the limits by halving."""

    def __call__(self, work: Work) -> Result:
        if not (isinstance(work, GateWork) and work.allocation is not None and work.recipe.pruning is not None):
            return super().__call__(work)
        profiled = super().__call__(ProfileWork())
        assert isinstance(profiled, Profiled) and work.limits is not None
        low, high = SMALLEST_SHARE, 1.0
        best: Result | None = None
        for _ in range(HALVINGS):
            share = (low * high) ** 0.5
            result = super().__call__(_with_share(work, profiled.profile, share))
            if not isinstance(result, Gated):
                return result
            fits = _fits(result, work.limits, profiled.profile.baseline)
            best = result if fits or best is None else best
            low, high = (share, high) if fits else (low, share)
        assert best is not None
        return best


def _with_share(work: GateWork, profile: Profile, share: float) -> GateWork:
    multiple = work.allocation.channel_multiple if work.allocation is not None else 1
    keep = {}
    for name, size in profile.sizes.items():
        step = multiple if size >= 2 * multiple else 1
        count = min(size, max(1, round(share * size / step)) * step)
        if count < size:
            keep[name] = count
    assert work.recipe.pruning is not None
    recipe = work.recipe.replaced(StructuredPruning, replace(work.recipe.pruning, keep=keep))
    return replace(work, recipe=recipe, allocation=None)


def _fits(gated: Gated, limits: Limits, baseline: Baseline) -> bool:
    latency = limits.latency_ratio is None or gated.latency.ratio <= limits.latency_ratio
    return latency and (limits.size_ratio is None or gated.size_bytes <= limits.size_ratio * baseline.size_bytes)


class WithoutCache(Evaluator):
    """Every work starts from an empty cache, on a bench of its own."""

    def __call__(self, work: Work) -> Result:
        folder = Path(tempfile.mkdtemp(prefix="without-cache-"))
        fresh = Evaluator(replace(self.inputs, cache=folder), self.clock)
        fresh.tuning = self.tuning
        try:
            return fresh(work)
        finally:
            self.gates += fresh.gates
            shutil.rmtree(folder, ignore_errors=True)


def _one_try_at_a_shape() -> AbstractContextManager[Any]:
    return patch.object(stage_gate, "ATTEMPTS", 1)


@contextmanager
def _equally_long(samples: int, seconds: float) -> Iterator[None]:
    """Every candidate that is within the budget is tuned on `samples` samples, in the order of the proposals."""

    def plan(*, now: float, end: float, speed: float, since: int = 0, **_: Any) -> RungPlan:
        many = max(1, int(2 * (end - now) * speed / samples))
        return RungPlan(samples=(samples,) * 3, candidates=(many,) * 3, top_starts=end, end=end, first=since)

    def promote(trials: Collection[Trial], towards: Mapping[int, int], plan: RungPlan, *_: Any, **__: Any) -> Any:
        waiting = [t for t in trials if t.state == "stopped" and rung_of(t) == 0 and t.number not in towards]
        return Promotion(waiting[0].number, plan.top, 0, plan.samples[-1]) if waiting else None

    with patch.object(rounds, "plan_rungs", plan), patch.object(rounds, "next_promotion", promote):
        yield


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """around: entered while the job runs; it gets the baselines' samples per candidate and the seconds."""

    evaluator: type[Evaluator] = Evaluator
    around: Callable[[int, float], AbstractContextManager[Any]] = lambda samples, seconds: nullcontext()


ABLATIONS: dict[str, Ablation] = {
    "without-sensitivity": Ablation(evaluator=UniformSensitivity),
    "without-solver": Ablation(evaluator=ProportionalScaling),
    "without-repair": Ablation(around=lambda samples, seconds: _one_try_at_a_shape()),
    "without-rungs": Ablation(around=_equally_long),
    "without-cache": Ablation(evaluator=WithoutCache),
}


def run_ablated(inputs: JobInputs, clock: TuningClock, name: str, *, seconds: float, samples: int) -> Standing:
    ablation = ABLATIONS[name]
    with ExitStack() as stack:
        stack.enter_context(ablation.around(samples, seconds))
        return run_ours(inputs, clock, name, seconds=seconds, evaluator=ablation.evaluator)

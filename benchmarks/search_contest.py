"""The rules of the comparison: one clock, one evaluator, one form of result for every contestant.

The clock counts processor seconds inside the tuning loop and nothing else, on one thread: what a candidate's shape,
export, measurement and score cost is free for everybody, and neither a pause for a measurement nor a neighbour on the
machine counts against anyone. Outputs of the teacher are computed before the clock starts.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from compressors import training
from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.latency import LatencyResult, measure
from search import stage_confirm, stage_gate, stage_score
from search.evaluator import make_evaluator
from search.inputs import JobInputs
from search.work import Failed, Gated, GateWork, Result, Scored, ScoreWork, SoupWork, Work
from search.workbench import Workbench

QUICK_SECONDS = 0.02  # of a measurement whose result no limit of the budget looks at
QUICK_ROUNDS = 6


class TuningClock:
    """Processor seconds spent in `compressors.training.tune` while `counting`."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Every tuning loop of this process counts, and its deadline is one on this clock."""
        tune = training.tune

        def counted(*arguments: Any, **named: Any) -> training.Outcome:
            began = time.process_time()
            if named.get("deadline") is not None:
                named["deadline"] += began - named["clock"]()
            try:
                return tune(*arguments, **{**named, "clock": time.process_time})
            finally:
                self.seconds += time.process_time() - began

        with patch.object(training, "tune", counted), patch.object(stage_score, "tune", counted):
            yield


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One look at a candidate: its cost, or its metric after some tuning.

    at: seconds on the clock afterwards. seconds: of tuning that it took. feasible: whether the costs meet the budget.
    """

    trial: int
    at: float
    seconds: float
    feasible: bool
    metric: float | None
    size_ratio: float
    latency_ratio: float
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a contestant found in a cell.

    curve: (seconds, best feasible metric on validation) at each change. answer: the metric of the file that it answers
    with, test: of the same file on the test split, read once; None: nothing within the budget. predictions: (predicted,
    measured) latency ratios. wall_s, processor_s: of everything.
    """

    network: str
    seed: int
    contestant: str
    seconds: float
    uncompressed: float
    uncompressed_test: float | None
    attempts: tuple[Attempt, ...]
    curve: tuple[tuple[float, float], ...]
    answer: float | None
    test: float | None
    size_ratio: float | None
    latency_ratio: float | None
    gates: int
    predictions: tuple[tuple[float, float], ...]
    wall_s: float
    processor_s: float
    reason: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Standing:
        d = dict(document)
        d["attempts"] = tuple(Attempt(**a) for a in d["attempts"])
        d["curve"] = tuple((float(s), float(m)) for s, m in d["curve"])
        d["predictions"] = tuple((float(p), float(m)) for p, m in d["predictions"])
        return cls(**d)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(self.to_json()))
        partial.replace(path)

    @property
    def tuning_s(self) -> float:
        return sum(a.seconds for a in self.attempts)

    @property
    def tuned(self) -> list[Attempt]:
        return [a for a in self.attempts if a.seconds > 0]

    @property
    def feasible_share(self) -> float:
        """Of the tuning seconds, those that went into candidates within the budget."""
        return sum(a.seconds for a in self.tuned if a.feasible) / max(self.tuning_s, 1e-9)

    @property
    def over_budget(self) -> int:
        """Candidates over the budget that were tuned."""
        return len({a.trial for a in self.tuned if not a.feasible})

    def reached(self, metric: float) -> float | None:
        """Seconds after which the best was at least this good."""
        return next((seconds for seconds, best in self.curve if best >= metric - 1e-12), None)


class Evaluator:
    """Does works in this process, as an evaluator process of a job would, and keeps what the comparison looks at."""

    def __init__(self, inputs: JobInputs, clock: TuningClock) -> None:
        self.inputs, self.clock = inputs, clock
        self.gates = 0
        self.predictions: list[tuple[float, float]] = []
        self.tuning: dict[int, float] = {}  # seconds by trial, since they were last asked for
        self._evaluate = make_evaluator(inputs, threads=1)

    def __call__(self, work: Work) -> Result:
        began = self.clock.now()
        try:
            result = self._evaluate(work)
        except Exception as error:  # a candidate that fails is a candidate without a metric, as in a job
            return Failed(
                reason=f"{type(error).__name__}: {error}",
                refused=isinstance(error, InvalidRecipe | UnsupportedModel),
                detail={"traceback": traceback.format_exc(limit=-8)},
            )
        finally:
            if isinstance(work, ScoreWork | SoupWork):
                self.tuning[work.trial] = self.tuning.get(work.trial, 0.0) + self.clock.now() - began
        if isinstance(result, Gated) and isinstance(work, GateWork):
            self.gates += 1
            predicted = getattr(result, "predicted", None)
            if predicted is not None:
                self.predictions.append((float(predicted[0]), result.latency.ratio))
        return result

    def spent(self, trial: int) -> float:
        """Seconds of tuning that this trial took since the last call."""
        return self.tuning.pop(trial, 0.0)


class InProcess:
    """An executor of one slot that does the work while it is asked for the result."""

    slots = 1

    def __init__(self, evaluate: Evaluator) -> None:
        self._evaluate = evaluate
        self._work: Work | None = None
        self._idle = 0

    @property
    def free(self) -> int:
        return int(self._work is None)

    def submit(self, work: Work) -> None:
        self._work, self._idle = work, 0

    def poll(self, timeout_s: float) -> list[tuple[Work, Result]]:
        """Raises RuntimeError when it is asked again and again without work: the clock stands still then."""
        if self._work is None:
            self._idle += 1
            if self._idle > 100:
                raise RuntimeError("the search neither gives work nor ends")
            return []
        work, self._work = self._work, None
        return [(work, self._evaluate(work))]

    def abort(self, work: Work) -> None:
        """Nothing runs between two calls."""

    def close(self) -> None:
        """Nothing to end."""


def warm_up(inputs: JobInputs) -> None:
    """Computes what all contestants of a cell share, so that the first of them does not pay for it."""
    bench = Workbench(inputs, threads=1)
    rows = len(bench.splits.tuning.rows)
    for start in range(0, rows, 2048):
        bench.teacher.outputs(np.arange(start, min(start + 2048, rows), dtype=np.int64))


@contextmanager
def quick_where_unlimited(inputs: JobInputs) -> Iterator[None]:
    """Where the budget has no limit on latency, it is measured in a moment: it decides nothing, and a grid has
    thousands of such measurements."""
    budget = inputs.spec.budget
    if budget.latency_ms is not None or budget.latency_ratio is not None:
        yield
        return
    with (
        patch.object(stage_gate, "measure_quietly", _measure_quickly),
        patch.object(stage_confirm, "measure_for_publication", _measure_quickly),
    ):
        yield


def _measure_quickly(bench: Workbench, candidate: Path, baseline: Path) -> LatencyResult:
    sessions = bench.session(candidate), bench.session(baseline)
    with bench.slot.exclusive():
        found = measure(*sessions, bench.latency_inputs, rounds=QUICK_ROUNDS, seconds=QUICK_SECONDS)
    return replace(found, noisy=False)


@dataclass
class Recorder:
    """Builds the curve while a contestant works. best: of the trials as they stand, by trial."""

    clock: TuningClock
    attempts: list[Attempt] = field(default_factory=list)
    curve: list[tuple[float, float]] = field(default_factory=list)
    _best: dict[int, float] = field(default_factory=dict)

    def note(self, attempt: Attempt) -> None:
        """A trial that is tuned further counts with its newest file, also if that is worse."""
        self.attempts.append(attempt)
        if attempt.metric is None or not attempt.feasible:
            return
        self._best[attempt.trial] = attempt.metric
        best = max(self._best.values())
        if not self.curve or self.curve[-1][1] != best:
            self.curve.append((attempt.at, best))


def scored(result: Result) -> Scored:
    """Raises RuntimeError for a work that failed: a baseline's candidates are plain enough to work always."""
    if isinstance(result, Failed):
        raise RuntimeError(f"{result.reason}\n{(result.detail or {}).get('traceback', '')}")
    assert isinstance(result, Scored)
    return result


def spread(values: Sequence[float]) -> str:
    """median (lowest to highest)."""
    if not values:
        return "none"
    return f"{np.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"

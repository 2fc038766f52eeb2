"""Entry of a search: drives one job's coordinator with processes and a clock, and writes what happens to the ledger."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, replace

from search.choice import as_best
from search.confirmation import confirm
from search.coordinator import Answer, Coordinator
from search.evaluator import make_evaluator
from search.evaluator_process import Bench
from search.events import BaselineKnown, Changed, Event, FrontChanged
from search.executor import Executor
from search.inputs import JobInputs
from search.ledger import Ledger, trial_file
from search.local_executor import LocalExecutor
from search.records import JobState, Outcome, Progress
from search.report import build_report
from search.rungs import RungPlan
from search.soup import add_soup
from search.stage_score import artifact_path
from search.trial_book import CANCELLED, PAUSED
from search.work import ScoreWork, Work

POLL_SECONDS = 0.25
DIRECTIVE_SECONDS = 1.0
PROGRESS_SECONDS = 1.0
KEEP_SECONDS = 30.0  # between two copies of the best file so far into the store
PATIENCE_SECONDS = 900.0
FRONT_FILES = 32  # of a front's members that are kept, the fastest ones

MakeExecutor = Callable[[JobInputs], Executor]


class Interrupted(Exception):
    """The owner wants the job paused or cancelled."""


def local_executor(inputs: JobInputs) -> Executor:
    return LocalExecutor(Bench(make_evaluator, (inputs,), {"job_id": inputs.job_id}), slots=inputs.spec.search.parallel)


def run_job(inputs: JobInputs, ledger: Ledger, *, make_executor: MakeExecutor = local_executor) -> None:
    """Runs (or goes on with) the job until it is finished, cancelled or paused, and says so to the ledger.

    Raises LeaseLost when another worker has taken the job over, and whatever else keeps it from going on (a full disk,
    a defect): whether the job is tried again is not decided here. No process of the executor is left either way.
    """
    executor = make_executor(inputs)
    try:
        _Driver(inputs, ledger, executor).run()
    finally:
        executor.close()


def patience(work: Work) -> float:
    """Seconds after which a work counts as hung: what it was given for tuning, and plenty for the rest."""
    return PATIENCE_SECONDS + (work.seconds or 0.0 if isinstance(work, ScoreWork) else 0.0)


class _Driver:
    def __init__(self, inputs: JobInputs, ledger: Ledger, executor: Executor) -> None:
        self._inputs, self._ledger, self._executor = inputs, ledger, executor
        self._before = ledger.elapsed_s()
        self._began = time.monotonic()
        self._asked = self._told = self._kept_at = float("-inf")
        self._kept: str | None = None  # sha256 of the best file that is in the store
        self._plan_path = inputs.workspace / "plan.json"
        self._best: object = None
        self._due: dict[int, tuple[float, Work]] = {}  # when a running work counts as hung
        worker = f"{socket.gethostname()}:{os.getpid()}"
        self._saved = self._saved_plan()
        self._coordinator = Coordinator(inputs.spec, ledger.trials(), self._saved, worker=worker)

    def run(self) -> None:
        inputs, coordinator = self._inputs, self._coordinator
        if coordinator.book.rows:
            self._ledger.log("info", f"goes on with {len(coordinator.book)} trials after {self._before:.0f} s")
        try:
            answer = self._search()
            coordinator.book.settle()
            self._flush()
            if answer.failed or coordinator.profile is None:
                self._ledger.finish("failed", outcome=None, reason=answer.reason, report=None)
                return
            self._ledger.log("info", answer.reason)
            self._progress("confirm", force=True)
            if add_soup(inputs.spec, coordinator, self._evaluate, self._remaining()) is not None:
                self._flush()
            verdict = confirm(inputs.spec, coordinator, answer, self._evaluate, self._remaining())
            self._flush()
        except Interrupted as wish:
            self._interrupt(str(wish))
            return
        report = build_report(inputs, coordinator, answer, verdict)
        if verdict.confirmed is None or verdict.trial is None:
            self._ledger.finish("failed", outcome=None, reason=verdict.reason, report=report)
            return
        self._ledger.put_artifact("baseline", inputs.workspace / "baseline.onnx")
        self._ledger.put_artifact("winner", inputs.workspace / verdict.artifact)
        if inputs.spec.objective == "pareto":
            self._keep_front()
        confirmed = replace(coordinator.profile.baseline, latency_ms=verdict.confirmed.baseline_latency_ms)
        self._ledger.put_baseline(confirmed)  # measured in the same rounds as the winner
        best = as_best(verdict.trial, coordinator.profile.baseline, test_metric=verdict.confirmed.test_metric)
        self._ledger.put_best(best)
        self._progress("confirm", force=True)
        outcome: Outcome = "feasible" if verdict.trial.feasible else "nearest_miss"
        self._ledger.finish("succeeded", outcome=outcome, reason=verdict.reason, report=report)

    def _keep_front(self) -> None:
        """The files of the front's members, where the front is the answer; those of an earlier host may be gone."""
        for number in self._coordinator.book.front[:FRONT_FILES]:
            file = self._inputs.workspace / artifact_path(number)
            if file.exists():
                self._ledger.put_artifact(trial_file(number), file)

    @property
    def _now(self) -> float:
        return self._before + time.monotonic() - self._began

    def _remaining(self) -> float:
        return self._inputs.spec.search.max_seconds - self._now

    def _search(self) -> Answer:
        coordinator = self._coordinator
        while (answer := coordinator.answer(self._now)) is None:
            self._obey()
            coordinator.book.now = self._now
            while self._executor.free and (work := coordinator.next_work(self._now)) is not None:
                self._executor.submit(work)
                self._due[id(work)] = (time.monotonic() + patience(work), work)
            self._save_plan()
            self._flush()
            self._progress(coordinator.stage)
            self._cut_off_the_overdue()
            finished = self._executor.poll(POLL_SECONDS)
            coordinator.book.now = self._now
            for work, result in finished:
                self._due.pop(id(work), None)
                coordinator.take(work, result)
            self._flush()
        return answer

    def _evaluate(self, work: Work) -> object:
        """One work to its end, other results being dropped: the search is over."""
        while not self._executor.free:
            self._obey()
            self._executor.poll(POLL_SECONDS)
        self._executor.submit(work)
        while True:
            self._obey()
            self._flush()
            for done, result in self._executor.poll(POLL_SECONDS):
                if done is work:
                    self._coordinator.book.now = self._now
                    return result

    def _cut_off_the_overdue(self) -> None:
        """A process that hangs is killed, and its work tried again elsewhere."""
        for due, work in list(self._due.values()):
            if time.monotonic() > due:
                self._ledger.log("warning", f"{type(work).__name__} takes too long; its process is killed")
                self._due[id(work)] = (float("inf"), work)
                self._executor.abort(work)

    def _obey(self) -> None:
        if time.monotonic() - self._asked < DIRECTIVE_SECONDS:
            return
        self._asked = time.monotonic()
        directive = self._ledger.directive()
        if directive != "run":
            raise Interrupted(directive)

    def _interrupt(self, wish: str) -> None:
        """Stops at once and keeps what was found."""
        self._executor.close()
        self._coordinator.book.interrupt(PAUSED if wish == "pause" else CANCELLED)
        self._flush()
        self._keep_best(force=True)
        state: JobState = "paused" if wish == "pause" else "cancelled"
        self._ledger.finish(state, outcome=None, reason=f"{state} by its owner", report=None)

    def _keep_best(self, *, force: bool = False) -> None:
        """The best file so far, for its owner to fetch, and for when this machine is lost."""
        if not force and time.monotonic() - self._kept_at < KEEP_SECONDS:
            return
        for trial in self._coordinator.book.ranked(self._inputs.spec.objective)[:1]:
            file = self._inputs.workspace / artifact_path(trial.number)
            if trial.artifact is None or trial.artifact == self._kept or not file.exists():
                continue
            self._kept, self._kept_at = trial.artifact, time.monotonic()
            try:
                self._ledger.put_artifact("winner", file)
            except OSError as error:
                self._ledger.log("warning", f"the best file so far is not in the store: {error}", trial.number)

    def _flush(self) -> None:
        for event in self._coordinator.events():
            self._write(event)
        profile = self._coordinator.profile
        if profile is None:
            return
        for trial in self._coordinator.book.ranked(self._inputs.spec.objective)[:1]:
            best = as_best(trial, profile.baseline)
            if best != self._best:
                self._ledger.put_best(best)
                self._best = best
        self._keep_best()

    def _write(self, event: Event) -> None:
        if isinstance(event, Changed):
            self._ledger.put_trial(event.trial)
        elif isinstance(event, BaselineKnown):
            self._ledger.put_baseline(event.baseline)
        elif isinstance(event, FrontChanged):
            self._ledger.put_front(event.numbers)
        else:
            self._ledger.log(event.level, event.message, event.trial)

    def _progress(self, stage: str, *, force: bool = False) -> None:
        if not force and time.monotonic() - self._told < PROGRESS_SECONDS:
            return
        self._told = time.monotonic()
        rows = self._coordinator.book.all
        running = sum(1 for t in rows if t.state == "running")
        gated = sum(1 for t in rows if t.state == "gated")
        self._ledger.put_progress(
            Progress(
                stage=stage,
                finished=len(rows) - running,
                running=running,
                gated=gated,
                planned=self._coordinator.planned,
                elapsed_s=round(self._now, 1),
                eta_s=round(max(0.0, self._remaining()), 1) if stage == "search" else None,
            )
        )

    def _saved_plan(self) -> RungPlan | None:
        """The rungs that an earlier coordinator planned, so that candidates stay comparable."""
        if not self._plan_path.exists():
            return None
        document = json.loads(self._plan_path.read_text())
        document["samples"] = tuple(document["samples"])
        document["candidates"] = tuple(document["candidates"])
        return RungPlan(**document)

    def _save_plan(self) -> None:
        plan = self._coordinator.plan
        if plan is not None and plan != self._saved:
            self._plan_path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._plan_path.with_suffix(".partial")
            partial.write_text(json.dumps(asdict(plan)))
            partial.replace(self._plan_path)
            self._saved = plan

"""The trials of a job in memory: rows, front, who is on the way to which rung, and what to tell the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from search.choice import ranked
from search.events import Changed, Event, FrontChanged, Logged
from search.front import Front
from search.hypervolume import Box
from search.ledger import LogLevel
from search.outranking import Outranking
from search.records import Score, Trial
from search.spec import Objective

PAUSED = "paused; goes on from its checkpoint"
CANCELLED = "cancelled; goes on from its checkpoint if the job is retried"
INTERRUPTED = (PAUSED, CANCELLED)  # reasons of stopped trials that a later coordinator takes up again


class TrialBook:
    """worker: written into the trials that this book begins.

    towards: rung that each running trial is on its way to (0: its gate or its first score). now: seconds that the job
    has run, set by whoever has a clock. box: what the hypervolume is measured in, once the baseline is known.

    Cost: O(front) per change, O(front log front) where the front changes.
    """

    def __init__(self, trials: Iterable[Trial] = (), *, worker: str | None = None) -> None:
        self.rows: dict[int, Trial] = {t.number: t for t in trials}
        self.towards: dict[int, int] = {}
        self.now = 0.0
        self._box: Box | None = None
        self._hypervolume: float | None = None
        self._worker = worker
        self._front = Front.of(self.rows.values())
        self._events: list[Event] = []

    def __getitem__(self, number: int) -> Trial:
        return self.rows[number]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def all(self) -> tuple[Trial, ...]:
        return tuple(self.rows.values())

    @property
    def next_number(self) -> int:
        return max(self.rows, default=-1) + 1

    @property
    def front(self) -> tuple[int, ...]:
        """Numbers of the trials on the front."""
        return self._front.numbers

    @property
    def hypervolume(self) -> float | None:
        """Of the front, 0..1; None before the baseline is known."""
        return self._hypervolume

    def measure_in(self, box: Box) -> None:
        """From now on each change of the front is measured in this box."""
        self._box = box
        self._hypervolume = box.volume(self.rows[n] for n in self._front.numbers)

    def ranked(self, objective: Objective) -> list[Trial]:
        """Feasible, scored trials, best first, as `choice.ranked` says."""
        return ranked(self.rows.values(), objective, self._box)

    def of_origin(self, *origins: str) -> list[Trial]:
        return [t for t in self.rows.values() if t.origin in origins]

    def begin(self, trial: Trial, rung: int) -> None:
        """The trial runs now, towards `rung`."""
        self.towards[trial.number] = rung
        self.put(replace(trial, state="running", reason=None, worker=self._worker))

    def end(self, trial: Trial) -> None:
        """The trial does not run any more; its state says why."""
        self.towards.pop(trial.number, None)
        self.put(trial)

    def put(self, trial: Trial) -> None:
        """Takes a new or changed row, and notes when it changed, how good the front is since, and each new score."""
        before = self.rows.get(trial.number)
        if before == trial:
            return
        self.rows[trial.number] = trial
        moved = trial.state != "running" and self._front.add(trial)
        if moved and self._box is not None:
            self._hypervolume = self._box.volume(self.rows[n] for n in self._front.numbers)
        trial = replace(
            trial,
            on_front=trial.number in self._front,
            elapsed_s=round(self.now, 2),
            hypervolume=self._hypervolume,
            scores=(*trial.scores, *self._new_score(before, trial)),
        )
        self.rows[trial.number] = trial
        self._events.append(Changed(trial))
        if moved:
            self._events.append(FrontChanged(self._front.numbers))

    def _new_score(self, before: Trial | None, trial: Trial) -> tuple[Score, ...]:
        if trial.metric is None or (before is not None and _scored(before) == _scored(trial)):
            return ()
        rung, samples = (0, 0) if trial.fidelity is None else (trial.fidelity.rung, trial.fidelity.samples)
        score = Score(
            rung=rung,
            samples=samples,
            metric=trial.metric,
            feasible=bool(trial.feasible),
            elapsed_s=round(self.now, 2),
            hypervolume=self._hypervolume,
        )
        return (score,)

    def say(self, event: Event) -> None:
        self._events.append(event)

    def log(self, level: LogLevel, message: str, trial: int | None = None) -> None:
        self._events.append(Logged(level, message, trial))

    def take_events(self) -> list[Event]:
        """What has happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    def interrupt(self, reason: str) -> None:
        """Marks everything that runs as stopped."""
        for number in list(self.towards):
            self.end(replace(self.rows[number], state="stopped", reason=reason))

    def settle(self) -> None:
        """At the end of a search: what waits for a promotion is not going to get one, and is told why."""
        self.interrupt("the search ended before it did")
        outranking = Outranking(self.all)
        for trial in self.all:
            if trial.state == "stopped" and trial.fidelity is not None and trial.metric is not None:
                self.put(replace(trial, reason=outranking.of(trial).reason))


def _scored(trial: Trial) -> tuple[object, ...]:
    """What a new look at a trial's file may change."""
    return trial.metric, trial.feasible, trial.fidelity, trial.latency, trial.size_bytes

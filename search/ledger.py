"""Where a search writes what happened, and reads back what an earlier coordinator of the same job wrote.

`service` implements it on SQL, bound to one leased job. Contract, which the conformance class tests:

- Every call is one short transaction and is durable when it returns.
- Every write carries the fencing token of the lease. After the lease is lost each call raises LeaseLost and
  changes nothing; the caller stops its work and writes no more.
- `put_trial` inserts or replaces the row with this number and raises the job's revision by one.
- Calls come from one thread. Heartbeats are the implementation's own business.
- When the worker is told to stop (a signal, a new release), `directive` raises Released, a LeaseLost: the caller ends
  its children within seconds and lets it pass, without `finish`. The job goes back to the queue and the next worker
  goes on where this one stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from search.records import Baseline, Best, JobState, Outcome, Progress, Trial

Directive = Literal["run", "pause", "cancel"]
LogLevel = Literal["info", "warning", "error"]
ArtifactName = str  # 'winner', 'baseline', or `trial_file` of a member of the front


def trial_file(number: int) -> ArtifactName:
    """Under which a trial's own file is kept."""
    return f"trial-{number}"


class LeaseLost(Exception):
    """Another worker holds the job now; this one must stop and write nothing more."""


class Released(LeaseLost):
    """This worker is told to stop; the job goes to another one."""


class Ledger(Protocol):
    def directive(self) -> Directive:
        """What the job's owner wants now. Polled about once a second; must cost one indexed read.

        Raises LeaseLost, Released.
        """
        ...

    def elapsed_s(self) -> float:
        """Seconds that earlier coordinators of this job have spent (0 for a new job)."""
        ...

    def trials(self) -> Sequence[Trial]:
        """All trials of the job in order of their number."""
        ...

    def put_trial(self, trial: Trial) -> None: ...

    def put_front(self, numbers: Sequence[int]) -> None:
        """Sets `on_front` of exactly these trials; rows that change get a new revision."""
        ...

    def put_baseline(self, baseline: Baseline) -> None: ...

    def put_best(self, best: Best) -> None: ...

    def put_progress(self, progress: Progress) -> None: ...

    def put_artifact(self, name: ArtifactName, path: Path) -> None:
        """Copies the file into the store; the later one of the same name wins."""
        ...

    def log(self, level: LogLevel, message: str, trial: int | None = None) -> None: ...

    def finish(
        self, state: JobState, *, outcome: Outcome | None, reason: str | None, report: Mapping[str, Any] | None
    ) -> None:
        """Last write of this coordinator; releases the lease. state: succeeded, failed, cancelled or paused."""
        ...

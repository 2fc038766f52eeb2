"""A ledger in memory: for tests of the search, and a second implementation for the ledger's conformance class."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from search.ledger import ArtifactName, Directive, LogLevel
from search.records import Baseline, Best, JobState, Outcome, Progress, Trial


class MemoryLedger:
    """folder: where artifacts are copied to. wish: what `directive` answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wish: Directive = "run"
        self.rows: dict[int, Trial] = {}
        self.front: tuple[int, ...] = ()
        self.baseline: Baseline | None = None
        self.best: Best | None = None
        self.progress: list[Progress] = []
        self.logs: list[tuple[LogLevel, str, int | None]] = []
        self.finished: dict[str, Any] | None = None
        self.before = 0.0

    def directive(self) -> Directive:
        return self.wish

    def elapsed_s(self) -> float:
        return self.before

    def trials(self) -> Sequence[Trial]:
        return [replace(t, on_front=n in self.front) for n, t in sorted(self.rows.items())]

    def put_trial(self, trial: Trial) -> None:
        self.rows[trial.number] = Trial.from_json(trial.to_json())

    def put_front(self, numbers: Sequence[int]) -> None:
        self.front = tuple(numbers)

    def put_baseline(self, baseline: Baseline) -> None:
        self.baseline = baseline

    def put_best(self, best: Best) -> None:
        self.best = best

    def put_progress(self, progress: Progress) -> None:
        self.progress.append(progress)

    def put_artifact(self, name: ArtifactName, path: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self.folder / f"{name}.onnx")

    def log(self, level: LogLevel, message: str, trial: int | None = None) -> None:
        self.logs.append((level, message, trial))

    def finish(
        self, state: JobState, *, outcome: Outcome | None, reason: str | None, report: Mapping[str, Any] | None
    ) -> None:
        self.finished = {"state": state, "outcome": outcome, "reason": reason, "report": report}

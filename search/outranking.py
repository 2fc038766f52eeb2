"""Why a scored candidate was not tuned further. Pure functions of the trials' scores."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from search.records import Trial


@dataclass(frozen=True)
class Outranked:
    """rung: the last that the trial reached. by: the least of those that scored better there and went on, None if none
    did. margin: how much better it was there."""

    rung: int
    by: int | None
    margin: float

    @property
    def reason(self) -> str:
        if self.by is None:
            return f"the search ended before its turn for rung {self.rung + 1}"
        return f"outranked at rung {self.rung} by {self.margin:.4f}: trial {self.by} went on from there"


def outranked(trial: Trial, trials: Iterable[Trial]) -> Outranked:
    """Compares `trial` with all that went further than it did. It must have a fidelity. Cost: O(trials x rungs)."""
    assert trial.fidelity is not None
    rung = trial.fidelity.rung
    own = metric_at(trial, rung)
    margins = [
        (there - own, other.number)
        for other in trials
        if other.fidelity is not None
        and other.fidelity.rung > rung
        and own is not None
        and (there := metric_at(other, rung)) is not None
        and there > own
    ]
    if not margins:
        return Outranked(rung, None, 0.0)
    margin, number = min(margins)
    return Outranked(rung, number, margin)


def metric_at(trial: Trial, rung: int) -> float | None:
    """The first score at this rung; None if the trial has none there."""
    return next((s.metric for s in trial.scores if s.rung == rung), None)

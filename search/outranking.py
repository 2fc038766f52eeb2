"""Why a scored candidate was not tuned further: held against the scores of those that were."""

from __future__ import annotations

from bisect import bisect_right
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


class Outranking:
    """The scores of all trials that went further than some rung. Cost: O(scores log scores), O(log trials) a trial."""

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._went_on: dict[int, list[tuple[float, int]]] = {}  # by rung: (metric there, trial), ascending
        for trial in trials:
            for rung in range(0 if trial.fidelity is None else trial.fidelity.rung):
                metric = metric_at(trial, rung)
                if metric is not None:
                    self._went_on.setdefault(rung, []).append((metric, trial.number))
        for scores in self._went_on.values():
            scores.sort()

    def of(self, trial: Trial) -> Outranked:
        """The trial must have a fidelity."""
        assert trial.fidelity is not None
        rung = trial.fidelity.rung
        own, scores = metric_at(trial, rung), self._went_on.get(rung, [])
        if own is None:
            return Outranked(rung, None, 0.0)
        at = bisect_right(scores, (own, 2**63))
        if at == len(scores):
            return Outranked(rung, None, 0.0)
        metric, number = scores[at]
        return Outranked(rung, number, metric - own)


def metric_at(trial: Trial, rung: int) -> float | None:
    """The first score at this rung; None if the trial has none there."""
    return next((s.metric for s in trial.scores if s.rung == rung), None)

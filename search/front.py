"""The trade-off curve of a job: feasible trials that no other feasible trial beats in everything."""

from __future__ import annotations

from collections.abc import Iterable

from search.records import Trial


def _cost(trial: Trial) -> tuple[float, float, float] | None:
    if not trial.feasible or trial.metric is None or trial.latency is None or trial.size_bytes is None:
        return None
    return (-trial.metric, trial.latency.ratio, float(trial.size_bytes))


def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """All coordinates are minimised."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


class Front:
    """Kept incrementally: one comparison with each member per added trial."""

    def __init__(self) -> None:
        self._members: dict[int, tuple[float, float, float]] = {}

    @property
    def numbers(self) -> tuple[int, ...]:
        """Trial numbers, fastest first."""
        return tuple(sorted(self._members, key=lambda n: (self._members[n][1], n)))

    def __contains__(self, number: int) -> bool:
        return number in self._members

    def add(self, trial: Trial) -> bool:
        """Takes a new or changed trial; returns whether the set of members changed."""
        before = set(self._members)
        previous = self._members.pop(trial.number, None)
        cost = _cost(trial)
        if cost is not None and not any(dominates(m, cost) for m in self._members.values()):
            self._members = {n: m for n, m in self._members.items() if not dominates(cost, m)}
            self._members[trial.number] = cost
        return set(self._members) != before or (previous is not None and previous != cost)

    @classmethod
    def of(cls, trials: Iterable[Trial]) -> Front:
        front = cls()
        for trial in trials:
            front.add(trial)
        return front

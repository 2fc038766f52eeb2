"""What a sampler has asked for and been told. Strategies read it; a part of bounded size says enough.

A suggestion is a function of the seed, the trial's number and this history. The history orders trials by number, not by
when their results came, so a history that is built again from the ledger gives the same suggestions.
"""

from __future__ import annotations

import hashlib
import json
from bisect import insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Knobs = Mapping[str, Any]
FAILED = 1e6  # violation of a trial that has no result: worse than any that has one


@dataclass(frozen=True)
class Told:
    """values: one per objective, larger is better; None: there are none. constraints: excess by name, <= 0 when met."""

    number: int
    knobs: Knobs
    values: tuple[float, ...] | None
    constraints: Mapping[str, float] = field(default_factory=dict)

    @property
    def violation(self) -> float:
        """Sum of what is over the limits; 0 for a feasible trial."""
        over = sum(max(0.0, excess) for excess in self.constraints.values())
        return over if over > 0 or self.values is not None else FAILED

    @property
    def sum(self) -> float:
        return sum(self.values or (0.0,))


Key = tuple[float, float, int]


def merit(told: Told, objective: int | None = None) -> Key:
    """Sorts the feasible before the rest, these by value (of one objective, or the sum), those by violation."""
    violation = told.violation
    if violation > 0:
        return (violation, 0.0, told.number)
    assert told.values is not None
    return (0.0, -(told.sum if objective is None else told.values[objective]), told.number)


class History:
    """objectives: how many values each result has. Memory: O(trials); a result costs O(log trials) comparisons."""

    def __init__(self, objectives: int) -> None:
        self.objectives = objectives
        self.told: dict[int, Told] = {}
        self.open: dict[int, Knobs] = {}
        self._seen: set[bytes] = set()
        self._numbers: list[int] = []
        views: list[int | None] = [None] if objectives == 1 else [None, *range(objectives)]
        self._ranked: dict[int | None, list[Key]] = {view: [] for view in views}

    def begin(self, number: int, knobs: Knobs) -> None:
        self._seen.add(_digest(knobs))
        self.open[number] = knobs

    def end(self, told: Told) -> None:
        """Raises KeyError if the trial is not open."""
        del self.open[told.number]
        self.told[told.number] = told
        insort(self._numbers, told.number)
        for objective, keys in self._ranked.items():
            insort(keys, merit(told, objective))

    def has_seen(self, knobs: Knobs) -> bool:
        return _digest(knobs) in self._seen

    def recent(self, count: int) -> list[Told]:
        """The last trials by number."""
        return [self.told[n] for n in self._numbers[max(0, len(self._numbers) - count) :]]

    def between(self, start: int, stop: int) -> list[Told]:
        """The start-th to stop-th trial by number."""
        return [self.told[n] for n in self._numbers[start:stop]]

    def best(self, count: int) -> list[Told]:
        """By merit; with several objectives an equal number by each of them and by their sum."""
        share = -(-count // len(self._ranked))
        numbers = {n: None for keys in self._ranked.values() for _, _, n in keys[:share]}
        return [self.told[n] for n in list(numbers)[:count]]

    def part(self, best: int, recent: int) -> list[Told]:
        """At most best + recent trials, in order of their number."""
        chosen = {t.number: t for t in (*self.best(best), *self.recent(recent))}
        return [chosen[n] for n in sorted(chosen)]

    def last_open(self, count: int) -> list[tuple[int, Knobs]]:
        numbers = sorted(self.open, reverse=True)[:count][::-1]
        return [(n, self.open[n]) for n in numbers]


def _digest(knobs: Knobs) -> bytes:
    return hashlib.blake2b(json.dumps(knobs, sort_keys=True).encode(), digest_size=16).digest()


def scalar(told: Sequence[Told], weights: Sequence[float]) -> list[float]:
    """One number per trial, larger is better: weighted Tchebycheff over each objective's range (ParEGO, Knowles 2006).

    The infeasible follow below the worst feasible one in order of their violation.
    """
    feasible = [t.values for t in told if t.values is not None and t.violation == 0]
    columns = list(zip(*feasible, strict=True))
    spans = [(min(c), max(max(c) - min(c), 1e-12)) for c in columns]
    found = {}
    for t in told:
        if t.violation == 0 and t.values is not None:
            losses = [w * (1 - (v - low) / span) for w, v, (low, span) in zip(weights, t.values, spans, strict=True)]
            found[t.number] = -max(losses) - 0.05 * sum(losses)
    worst = min(found.values(), default=0.0)
    return [found[t.number] if t.number in found else worst - t.violation for t in told]

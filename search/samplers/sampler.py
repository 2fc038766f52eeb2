"""Ask and tell: what is asked for is legal, new, and the same again for the same seed and results.

The ledger is the truth: after a crash a new sampler is told every trial again, which gives the same history.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from search.samplers.encoding import Encoding
from search.samplers.history import History, Told
from search.samplers.strategy import Ground, has_solver_starts, make_strategy
from search.space import Space

_TRIES = 3  # suggestions until the strategy is taken to repeat itself
_RANDOM_TRIES = 64
_LISTED = 4096  # points of a finite space that are gone through one by one


class Sampler:
    """One strategy on one space. Not thread-safe. `ask` never gives knobs that were asked for or taken up before.

    objectives: how many values `tell` gets per trial; larger is better.
    Cost: an ask is bounded whatever the number of trials (docs/search.md says what was measured); memory O(trials).
    """

    def __init__(self, space: Space, strategy: str, *, seed: int, objectives: int = 1) -> None:
        self.encoding = Encoding(space.dimensions)
        self.history = History(objectives)
        self._ground = Ground(self.encoding, space.default, seed, objectives)
        self._strategy = make_strategy(strategy, self._ground)
        self._starts = [(knobs, "solver") for knobs in space.starts()] if has_solver_starts(strategy) else []
        self.starts = len(self._starts)

    def start_with(self, knobs: Mapping[str, Any], origin: str) -> bool:
        """Proposes these knobs before anything that is not a start. False: they are none of this space."""
        if not self.encoding.is_legal(knobs) or not self.encoding.dimensions:
            return False
        at = sum(1 for _, who in self._starts if who != "solver")
        self._starts.insert(at, (dict(knobs), origin))
        self.starts += 1
        return True

    def ask(self, number: int) -> tuple[dict[str, Any], str] | None:
        """(knobs, who proposed them) for trial `number`, or None when there is nothing new to propose."""
        while self._starts:
            knobs, origin = self._starts.pop(0)
            if not self.history.has_seen(knobs):
                return self._begin(number, knobs, origin)
        if not self.encoding.dimensions:
            return None
        for attempt in range(_TRIES):
            knobs, origin = self._strategy.suggest(self.history, number, attempt)
            if not self.history.has_seen(knobs):
                return self._begin(number, knobs, origin)
        return self._anything_new(number)

    def tell(self, number: int, values: Sequence[float] | None, constraints: Mapping[str, float]) -> None:
        """values: one per objective, None if the trial has none. constraints: excess by name, <= 0 when met.

        Raises KeyError if the trial was not asked for, or told before.
        """
        knobs = self.history.open[number]
        self.history.end(Told(number, knobs, None if values is None else tuple(values), dict(constraints)))

    def replay(self, number: int, knobs: Mapping[str, Any]) -> None:
        """Takes up a trial that an earlier coordinator asked for; `tell` may follow."""
        if self.encoding.is_legal(knobs):
            self.history.begin(number, dict(knobs))

    @property
    def waiting(self) -> Sequence[int]:
        """Trials asked for and not yet told."""
        return tuple(self.history.open)

    def _begin(self, number: int, knobs: dict[str, Any], origin: str) -> tuple[dict[str, Any], str]:
        self.history.begin(number, knobs)
        return knobs, origin

    def _anything_new(self, number: int) -> tuple[dict[str, Any], str] | None:
        if self.encoding.count <= _LISTED:
            rest = (k for k in self.encoding.every() if not self.history.has_seen(k))
        else:
            random = self._ground.random(number, _TRIES)
            drawn = (self.encoding.uniform(random) for _ in range(_RANDOM_TRIES))
            rest = (k for k in drawn if not self.history.has_seen(k))
        knobs = next(iter(itertools.islice(rest, 1)), None)
        return None if knobs is None else self._begin(number, knobs, "random")

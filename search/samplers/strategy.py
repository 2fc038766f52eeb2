"""What a strategy is, and the registry that finds it by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from search.samplers.encoding import Encoding
from search.samplers.history import History

Knobs = Mapping[str, Any]


@dataclass(frozen=True)
class Ground:
    """What a strategy works on. default: knobs of a candidate when nothing is known. objectives: values per result."""

    encoding: Encoding
    default: Knobs
    seed: int
    objectives: int = 1

    def random(self, number: int, attempt: int) -> np.random.Generator:
        """The source of randomness of one suggestion."""
        return np.random.default_rng((self.seed, number, attempt))


class Strategy(Protocol):
    """Contract, which the conformance class tests:

    - `suggest` is a function of the ground, the trial's number, the attempt and the history; it keeps no state that
      changes what it returns. So the same results give the same trials, also after a restart.
    - It looks at a part of the history of bounded size: with any number of trials told it stays under 50 ms.
    - Open trials count: it should not propose next to them what they may already tell.
    """

    def suggest(self, history: History, number: int, attempt: int) -> tuple[dict[str, Any], str]:
        """(legal knobs, the name of who proposed them). attempt: how many suggestions for this trial were repeats."""
        ...


Make = Callable[[Ground], Strategy]
_MAKERS: dict[str, tuple[Make, bool]] = {}


def register(name: str, *, solver_starts: bool) -> Callable[[Make], Make]:
    """solver_starts: whether the solver's proposals come first. Raises ValueError if the name is taken."""

    def decorate(make: Make) -> Make:
        if name in _MAKERS:
            raise ValueError(f"strategy {name!r} is registered already")
        _MAKERS[name] = (make, solver_starts)
        return make

    return decorate


def registered() -> tuple[str, ...]:
    return tuple(sorted(_MAKERS))


def make_strategy(name: str, ground: Ground) -> Strategy:
    return _find(name)[0](ground)


def has_solver_starts(name: str) -> bool:
    return _find(name)[1]


def _find(name: str) -> tuple[Make, bool]:
    if name not in _MAKERS:
        raise ValueError(f"search.strategy={name!r}: must be one of {', '.join(registered())}")
    return _MAKERS[name]

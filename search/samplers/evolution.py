"""CMA-ES on mixed spaces: a Gaussian over the reals and integers, a distribution per choice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cmaes import CatCMAwM

from search.samplers.encoding import Encoding, Point
from search.samplers.history import History, Told, scalar
from search.samplers.strategy import Ground, register

_GENERATIONS = 24  # the last ones; older ones hardly move the distribution any more
_SIGMA = 0.3  # first step on the unit interval


@register("cmaes", solver_starts=False)
class Evolution:
    """CatCMA with margin (Hamano et al. 2024, arXiv:2405.09962) from the `cmaes` package.

    Every `population` trials told, by number, are a generation, whoever proposed them. The distribution is made anew
    from the last generations when one is complete: 10 to 20 ms.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        dimensions = len(ground.encoding.dimensions)
        self._population = 4 + int(3 * np.log(dimensions))
        self._made: tuple[tuple[int, ...], CatCMAwM] | None = None

    def suggest(self, history: History, number: int, attempt: int) -> tuple[dict[str, Any], str]:
        encoding = self._ground.encoding
        optimizer = self._optimizer(history)
        optimizer.reseed_rng(int(self._ground.random(number, attempt).integers(2**31)))
        solution = optimizer.ask()
        unit = np.zeros(0) if solution.x is None else solution.x
        choices = np.zeros(0, dtype=np.int64) if solution.c is None else np.argmax(solution.c, axis=1)
        return encoding.decode(unit, _spread(encoding, choices)), "cmaes"

    def _optimizer(self, history: History) -> CatCMAwM:
        size = self._population
        complete = len(history.told) // size
        first = max(0, complete - _GENERATIONS)
        generations = [history.between(g * size, (g + 1) * size) for g in range(first, complete)]
        key = tuple(t.number for generation in generations for t in generation)
        if self._made is None or self._made[0] != key:
            self._made = (key, self._built(generations, history.objectives))
        return self._made[1]

    def _built(self, generations: Sequence[Sequence[Told]], objectives: int) -> CatCMAwM:
        encoding = self._ground.encoding
        optimizer = self._fresh()
        for generation in generations:
            losses = [-v for v in scalar(generation, (1 / objectives,) * objectives)]
            points = [encoding.encode(t.knobs) for t in generation]
            optimizer.tell([(_solution(encoding, p), loss) for p, loss in zip(points, losses, strict=True)])
            if encoding.numeric and optimizer.should_stop():  # converged: begins again
                optimizer = self._fresh()
        return optimizer

    def _fresh(self) -> CatCMAwM:
        encoding = self._ground.encoding
        start = encoding.encode(self._ground.default)
        return CatCMAwM(
            x_space=[[0.0, 1.0]] * len(encoding.numeric) or None,
            c_space=[encoding.sizes[i] for i in _real_choices(encoding)] or None,
            population_size=self._population,
            mean=start.unit if encoding.numeric else None,
            sigma=_SIGMA if encoding.numeric else None,
            seed=self._ground.seed,
        )


def _real_choices(encoding: Encoding) -> list[int]:
    """Categorical knobs with more than one value."""
    return [i for i, size in enumerate(encoding.sizes) if size > 1]


def _spread(encoding: Encoding, choices: Sequence[int] | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found = np.zeros(len(encoding.sizes), dtype=np.int64)
    found[_real_choices(encoding)] = choices
    return found


def _solution(encoding: Encoding, point: Point) -> CatCMAwM.Solution:
    kept = _real_choices(encoding)
    one_hot = None
    if kept:
        one_hot = np.zeros((len(kept), max(encoding.sizes[i] for i in kept)), dtype=bool)
        one_hot[np.arange(len(kept)), point.choices[kept]] = True
    unit = point.unit if len(encoding.numeric) else None
    return CatCMAwM.Solution(unit, None, one_hot, unit)

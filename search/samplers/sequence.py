"""No learning: the solver's starts, then a Sobol sequence over the allocation with the default tuning."""

from __future__ import annotations

from typing import Any

from scipy.stats import qmc

from search.samplers.history import History
from search.samplers.strategy import Ground, register

_TUNING = ("learning_rate", "temperature", "alpha")  # stay at their defaults while anything else can be varied
_REPEAT = 7919  # how far along the sequence another attempt looks
_POINTS = 2**20


@register("solver", solver_starts=True)
class SobolSequence:
    """Scrambled Sobol points (Sobol 1967; Owen 1998), one per trial number."""

    def __init__(self, ground: Ground) -> None:
        self._encoding = ground.encoding
        self._default = {n: v for n, v in ground.default.items() if n in _TUNING}
        if len(self._default) == len(ground.encoding.dimensions):
            self._default = {}
        self._varied = [n for n in ground.encoding.dimensions if n not in self._default]
        self._points = qmc.Sobol(max(1, len(self._varied)), rng=ground.seed)

    def suggest(self, history: History, number: int, attempt: int) -> tuple[dict[str, Any], str]:
        self._points.reset()
        self._points.fast_forward((number + _REPEAT * attempt) % _POINTS)
        units = dict(zip(self._varied, self._points.random(1)[0], strict=True))
        at = self._encoding.at
        return {n: at(n, units[n]) if n in units else self._default[n] for n in self._encoding.dimensions}, "sobol"

"""What a job uses unless told otherwise: the solver's starts, a Gaussian process while trials are few, then TPE."""

from __future__ import annotations

from typing import Any

from search.samplers.gaussian_process import GaussianProcess
from search.samplers.history import History
from search.samplers.optuna_strategies import TreeParzen
from search.samplers.strategy import Ground, register

_FEW = 150  # trials told, up to which the Gaussian process finds better candidates
_OTHER = 4  # every so many trials the other one has its say: each gets stuck where the other does not


@register("auto", solver_starts=True)
class Automatic:
    def __init__(self, ground: Ground) -> None:
        self._process, self._tree = GaussianProcess(ground), TreeParzen(ground)

    def suggest(self, history: History, number: int, attempt: int) -> tuple[dict[str, Any], str]:
        process_first = len(history.told) < _FEW
        other = number % _OTHER == 0
        return (self._process if process_first != other else self._tree).suggest(history, number, attempt)

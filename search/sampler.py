"""Proposes knobs and learns from results: Optuna's samplers behind ask and tell, held in memory.

The ledger is the truth: after a crash a new sampler is told every trial again, in order, which gives the same study.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning

from search.space import Space

Strategy = Literal["auto", "tpe", "random"]
_TRIES = 20  # asks until a suggestion that is not a repetition is found


class Sampler:
    """auto: the solver's starts first (`starts` of them), then a multivariate TPE; tpe, random: without them.

    Not thread-safe. `ask` never gives knobs that were given before, unless the space is exhausted: then None.
    """

    def __init__(self, space: Space, strategy: Strategy, *, seed: int) -> None:
        self._dimensions = space.dimensions
        self._starts: list[dict[str, Any]] = space.starts() if strategy == "auto" else []
        self.starts = len(self._starts)
        self._seen: set[str] = set()
        self._open: dict[int, optuna.trial.Trial] = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # multivariate TPE is marked so since 2020
            sampler: optuna.samplers.BaseSampler = (
                optuna.samplers.RandomSampler(seed=seed)
                if strategy == "random"
                else optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=8)
            )
        self._study = optuna.create_study(direction="maximize", sampler=sampler)

    def ask(self, number: int) -> tuple[dict[str, Any], str] | None:
        """(knobs, who proposed them) for trial `number`, or None when there is nothing new to propose."""
        while self._starts:
            knobs = self._starts.pop(0)
            if self._key(knobs) not in self._seen:
                self._begin(number, knobs)
                return knobs, "solver"
        if not self._dimensions:
            return None
        for _ in range(_TRIES):
            trial = self._study.ask(self._dimensions)
            knobs = dict(trial.params)
            if self._key(knobs) not in self._seen:
                self._seen.add(self._key(knobs))
                self._open[number] = trial
                return knobs, type(self._study.sampler).__name__.removesuffix("Sampler").lower()
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return None

    def tell(self, number: int, value: float | None, constraints: Mapping[str, float]) -> None:
        """value: the metric, None if the trial has none. constraints: <= 0 when met, by name."""
        trial = self._open.pop(number)
        if value is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        for name, excess in constraints.items():
            trial.set_constraint(name, excess)
        self._study.tell(trial, value)

    def replay(self, number: int, knobs: Mapping[str, Any]) -> None:
        """Takes up a trial that an earlier coordinator asked for; `tell` may follow."""
        self._begin(number, dict(knobs))

    @property
    def waiting(self) -> Sequence[int]:
        """Trials asked for and not yet told."""
        return tuple(self._open)

    def _begin(self, number: int, knobs: dict[str, Any]) -> None:
        self._seen.add(self._key(knobs))
        self._study.enqueue_trial(knobs)
        self._open[number] = self._study.ask(self._dimensions)

    @staticmethod
    def _key(knobs: Mapping[str, Any]) -> str:
        return json.dumps(knobs, sort_keys=True)

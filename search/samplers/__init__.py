"""Who proposes the next candidate: strategies by name behind one `Sampler`. Importing this registers them all."""

from __future__ import annotations

from search.samplers import automatic, evolution, gaussian_process, optuna_strategies, sequence
from search.samplers.sampler import Sampler
from search.samplers.strategy import registered

__all__ = [
    "Sampler",
    "automatic",
    "evolution",
    "gaussian_process",
    "optuna_strategies",
    "registered",
    "sequence",
]

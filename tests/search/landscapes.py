"""Made-up answers to knobs: what a candidate would score, and by how much it would miss the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from search.samplers import Sampler
from search.space import Space

Knobs = Mapping[str, Any]
Landscape = Callable[[Knobs, np.random.Generator], tuple[float, float]]

FULL = Space(pruning=True, distillation=True, quantization=True, aims=True)


def valley(knobs: Knobs, random: np.random.Generator) -> tuple[float, float]:
    """(metric, excess): a good allocation and a good tuning; the best aim lies at the limit. No noise."""
    rate = math.log(knobs["learning_rate"] / 0.02)
    metric = 0.9 - 0.02 * (knobs["sharpness"] - 1.4) ** 2 - 0.01 * (knobs["depth_bias"] + 0.8) ** 2
    metric -= 0.01 * (knobs["stream_bias"] - 1.0) ** 2 + 0.01 * rate**2 + 0.05 * (1 - knobs["alpha"])
    metric -= 0.02 * (knobs["channel_multiple"] == 16) + 0.01 * (knobs["importance"] == "l1")
    return metric + 0.05 * knobs["aim"], knobs["aim"] - 0.6


def cliff(knobs: Knobs, random: np.random.Generator) -> tuple[float, float]:
    """The valley with noise; training collapses above a rate that depends on the temperature, half of it is over the
    limit."""
    metric, _ = valley(knobs, random)
    if knobs["learning_rate"] > 0.05 / math.sqrt(knobs["temperature"] / 3):
        metric = 0.3
    return metric + 0.003 * float(random.normal()), 0.5 * knobs["sharpness"] - 0.3 * knobs["stream_bias"] - 0.4


def choices(knobs: Knobs, random: np.random.Generator) -> tuple[float, float]:
    """What is best depends on the choices: they interact with the numbers."""
    centre = {"l2": 0.6, "l1": 1.2, "batch_norm": 1.7, "group_l2": 0.9}[knobs["importance"]]
    level = {"l2": 0.0, "l1": 0.015, "batch_norm": 0.03, "group_l2": 0.005}[knobs["importance"]]
    metric = 0.87 + level - 0.05 * (knobs["sharpness"] - centre) ** 2
    metric -= 0.01 * (knobs["observer"] != "mse") + 0.01 * (knobs["channel_multiple"] != 4)
    metric -= 0.006 * (knobs["depth_bias"] - 1.0) ** 2
    return metric + 0.002 * float(random.normal()), knobs["aim"] - 0.8


LANDSCAPES: dict[str, Landscape] = {"valley": valley, "cliff": cliff, "choices": choices}


def best_found(strategy: str, landscape: Landscape, *, seed: int, trials: int, parallel: int = 2) -> list[float]:
    """The best true feasible metric after each of `trials`, with `parallel` trials open at a time; 0: none yet."""
    sampler = Sampler(FULL, strategy, seed=seed)
    noise, none = np.random.default_rng((seed, 77)), np.random.default_rng(0)
    found: list[float] = []
    open_: list[tuple[int, dict[str, Any]]] = []
    for number in range(trials):
        asked = sampler.ask(number)
        assert asked is not None
        open_.append((number, asked[0]))
        if len(open_) == parallel:
            done, knobs = open_.pop(0)
            metric, excess = landscape(knobs, noise)
            sampler.tell(done, (metric,), {"budget": excess})
            true = _without_noise(landscape, knobs, none)
            found.append(max(found[-1] if found else 0.0, true if excess <= 0 else 0.0))
    return found


class _Silent:
    def normal(self) -> float:
        return 0.0


def _without_noise(landscape: Landscape, knobs: Knobs, _: object) -> float:
    return landscape(knobs, _Silent())[0]  # type: ignore[arg-type]

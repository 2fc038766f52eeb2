"""The knobs that a sampler turns. A candidate is a point here; the solver turns it into channel counts.

Few dimensions whatever the number of layers: the solver knows each layer, the knobs say how far to trust it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from compressors.recipe import Distillation, Phase, Quantization
from search.solver import Allocation
from search.spec import JobSpec
from search.variants import further_levels

Knobs = Mapping[str, Any]
_RESHAPING = (Phase.STUDENT, Phase.SHAPE, Phase.SPARSITY)


@dataclass(frozen=True)
class Space:
    """Conditional on the job: pruning, tuning, int8 and the free aim each bring their own dimensions.

    aims: whether the budget leaves the amount of compression open, so that the sampler chooses it. reshaping: whether
    variants may change shapes or zero weights, which asks for tuning like pruning does.
    """

    pruning: bool
    distillation: bool
    quantization: bool
    aims: bool
    reshaping: bool = False

    @classmethod
    def of(cls, spec: JobSpec, *, can_prune: bool) -> Space:
        """can_prune: whether the model has any group of channels to remove."""
        allowed = spec.allowed
        pruning = can_prune and "structured_pruning" in allowed
        reshaping = any(s.phase in _RESHAPING for s in further_levels(allowed, tuple(spec.models)))
        return cls(
            pruning=pruning,
            reshaping=reshaping,
            distillation=(pruning or reshaping) and "distillation" in allowed,
            quantization="quantization" in allowed,
            aims=pruning and spec.objective != "metric",
        )

    @property
    def tuning(self) -> bool:
        """Whether candidates are tuned."""
        return self.pruning or self.reshaping

    @property
    def dimensions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """Optuna's distributions by knob."""
        real, choice = optuna.distributions.FloatDistribution, optuna.distributions.CategoricalDistribution
        found: dict[str, optuna.distributions.BaseDistribution] = {}
        if self.pruning:
            found |= {
                "sharpness": real(0.3, 2.0),
                "depth_bias": real(-2.0, 2.0),
                "stream_bias": real(-1.5, 3.0),
                "channel_multiple": choice((4, 8, 16)),
                "importance": choice(("l2", "l1", "batch_norm")),
            }
        if self.tuning:
            found["learning_rate"] = real(0.003, 0.1, log=True)
            if self.distillation:
                found |= {"temperature": real(1.0, 8.0, log=True), "alpha": real(0.5, 1.0)}
        if self.quantization:
            found["observer"] = choice(("percentile", "min_max", "mse"))
        if self.aims:
            found["aim"] = real(0.0, 1.0)
        return found

    @property
    def default(self) -> dict[str, Any]:
        """Knobs of a candidate when nothing is known yet."""
        return dict(next(iter(self.starts()), {}))

    def starts(self) -> list[dict[str, Any]]:
        """Where the solver would begin: sensitivity taken at its word, then with each bias in turn."""
        first: dict[str, Any] = {}
        if self.tuning:
            first["learning_rate"] = 0.03
        if self.distillation:
            first |= {"temperature": 4.0, "alpha": 0.9}
        if not self.pruning:
            found = [{**first, "observer": o} for o in ("min_max", "mse")] if self.quantization else [first]
            return [start for start in found if start]
        first |= {
            "sharpness": 1.0,
            "depth_bias": 0.0,
            "stream_bias": 0.0,
            "channel_multiple": 8,
            "importance": "l2",
        }
        if self.quantization:
            first["observer"] = "percentile"
        variants: list[dict[str, Any]] = [
            {},
            {"stream_bias": 2.0},
            {"sharpness": 0.6, "channel_multiple": 4},
            {"depth_bias": -1.0, "channel_multiple": 4},
            {"channel_multiple": 16},
        ]
        starts = [{**first, **variant} for variant in variants]
        if self.aims:
            starts = [{**start, "aim": aim} for aim, start in zip((0.5, 0.25, 0.75, 0.0, 1.0), starts, strict=True)]
        return starts


def allocation(knobs: Knobs) -> Allocation:
    return Allocation(
        sharpness=knobs["sharpness"],
        depth_bias=knobs["depth_bias"],
        stream_bias=knobs["stream_bias"],
        channel_multiple=knobs["channel_multiple"],
    )


def tuning(knobs: Knobs) -> Distillation:
    """Without distillation allowed, alpha is 0: plain fine-tuning on labels."""
    return Distillation(
        temperature=round(knobs.get("temperature", 1.0), 4),
        alpha=round(knobs.get("alpha", 0.0), 4),
        learning_rate=round(knobs["learning_rate"], 6),
    )


def quantization(knobs: Knobs) -> Quantization | None:
    return Quantization(observer=knobs["observer"]) if "observer" in knobs else None

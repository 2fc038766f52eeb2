"""The knobs that a sampler turns. A candidate is a point here; the solver turns it into channel counts.

Few dimensions whatever the number of layers: the solver knows each layer, the knobs say how far to trust it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import optuna

from compressors.recipe import Distillation, Phase, Quantization
from search.profile import Profile
from search.solver import Allocation, Scope
from search.spec import JobSpec
from search.variants import further_levels

Knobs = Mapping[str, Any]
_AIMS = (0.5, 0.25, 0.75, 0.0, 1.0)  # from the floor (0) to the budget or int8 alone (1)
LEARNT_BITS = 4  # of layers whose rounding is learnt; above, it costs seconds and gains nothing to be seen
_RESHAPING = (Phase.STUDENT, Phase.SHAPE, Phase.SPARSITY)


@dataclass(frozen=True)
class Space:
    """Conditional on the job: each technique that the target can use and that can matter brings its own dimensions.

    bits: whether layers may have fewer than 8 bits, which matters only where size does. blocks: whether residual blocks
    may go. aims: whether the budget leaves the amount of compression open, so that the sampler chooses it. reshaping:
    whether variants may change shapes or zero weights, which asks for tuning like pruning does.
    """

    pruning: bool
    distillation: bool
    quantization: bool
    aims: bool
    bits: bool = False
    blocks: bool = False
    reshaping: bool = False

    @classmethod
    def of(cls, spec: JobSpec, profile: Profile) -> Space:
        """What this model gives a choice of: groups of channels, layers with integer kernels, blocks."""
        allowed = spec.allowed
        pruning = bool(profile.groups) and "structured_pruning" in allowed
        blocks = bool(profile.blocks) and "depth_pruning" in allowed
        reshaping = any(s.phase in _RESHAPING for s in further_levels(allowed, tuple(spec.models)))
        sized = spec.budget.size_ratio is not None or spec.budget.size_mb is not None
        bits = bool(profile.integer_layers) and "quantization" in allowed
        return cls(
            pruning=pruning,
            blocks=blocks,
            bits=bits and (sized or spec.objective in ("size", "pareto")),
            reshaping=reshaping,
            distillation=(pruning or blocks or reshaping) and "distillation" in allowed,
            quantization="quantization" in allowed,
            aims=(pruning or blocks or bits) and spec.objective != "metric",
        )

    @property
    def scope(self) -> Scope:
        """What the solver decides."""
        return Scope(keep=self.pruning, bits=self.bits, drop=self.blocks)

    @property
    def tuning(self) -> bool:
        """Whether candidates are tuned."""
        return self.pruning or self.blocks or self.reshaping

    @property
    def dimensions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """Optuna's distributions by knob."""
        real, choice = optuna.distributions.FloatDistribution, optuna.distributions.CategoricalDistribution
        found: dict[str, optuna.distributions.BaseDistribution] = {}
        if self.scope:
            found["sharpness"] = real(0.3, 2.0)
        if self.pruning:
            found |= {
                "depth_bias": real(-2.0, 2.0),
                "stream_bias": real(-1.5, 3.0),
                "channel_multiple": choice((4, 8, 16)),
                "importance": choice(("l2", "l1", "batch_norm", "group_l2")),
            }
        if self.blocks:
            found["block_bias"] = real(-4.0, 2.0)
        if self.bits:
            found |= {
                "bits_bias": real(-4.0, 4.0),
                "fewest_bits": choice((4, 3) if self.pruning else (2, 3, 4)),
                "rounding": choice(("gptq", "nearest")),
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
        if not self.scope:
            found = [{**first, "observer": o} for o in ("min_max", "mse")] if self.quantization else [first]
            return [start for start in found if start]
        first["sharpness"] = 1.0
        variants: list[dict[str, Any]] = [{}]
        if self.pruning:
            first |= {"depth_bias": 0.0, "stream_bias": 0.0, "channel_multiple": 8, "importance": "l2"}
        if self.blocks:
            first["block_bias"] = -1.0
            variants.append({"block_bias": -3.0})
        if self.bits:
            first |= {"bits_bias": 0.0, "fewest_bits": 4 if self.pruning else 2, "rounding": "gptq"}
            variants.append({"bits_bias": 3.0} if self.pruning else {"sharpness": 0.6})
        if self.pruning:
            variants += [
                {"stream_bias": 2.0, "importance": "group_l2"},
                {"sharpness": 0.6, "channel_multiple": 4},
                {"depth_bias": -1.0, "channel_multiple": 4},
                {"channel_multiple": 16},
            ]
        if self.quantization:
            first["observer"] = "percentile"
        starts = [{**first, **variant} for variant in variants]
        if self.aims:
            starts = [{**start, "aim": aim} for aim, start in zip(itertools.cycle(_AIMS), starts, strict=False)]
            starts += [{**first, "aim": aim} for aim in _AIMS[1:]] if len(variants) < len(_AIMS) else []
        return starts


def allocation(knobs: Knobs) -> Allocation:
    """Knobs that a job has no dimension for take no part."""
    names = {f.name for f in fields(Allocation)}
    return Allocation(**{name: value for name, value in knobs.items() if name in names})


def tuning(knobs: Knobs) -> Distillation:
    """Without distillation allowed, alpha is 0: plain fine-tuning on labels."""
    return Distillation(
        temperature=round(knobs.get("temperature", 1.0), 4),
        alpha=round(knobs.get("alpha", 0.0), 4),
        learning_rate=round(knobs["learning_rate"], 6),
    )


def quantization(knobs: Knobs) -> Quantization | None:
    if "observer" not in knobs:
        return None
    if knobs.get("rounding", "nearest") == "nearest":
        return Quantization(observer=knobs["observer"])
    return Quantization(observer=knobs["observer"], rounding=knobs["rounding"], rounding_bits=LEARNT_BITS)

"""What is done to a model, as data: one frozen configuration per technique, and the recipe that orders them.

This module imports no torch, so that the HTTP process can list techniques and read recipes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from compressors.errors import InvalidRecipe

RECIPE_VERSION = 1

Importance = Literal["l1", "l2", "batch_norm", "random"]
Observer = Literal["min_max", "percentile", "mse"]


@dataclass(frozen=True, kw_only=True)
class StructuredPruning:
    """Removes whole channels (or neurons) together with everything that is coupled to them.

    keep: channels kept per group (a group is named after its first producing layer). A group left out keeps all.
    importance: how channels are ranked inside a group.
        l1, l2: norm of the producing filters (Li et al. 2017, arXiv:1608.08710);
        batch_norm: absolute scale of the following norm (Liu et al. 2017, arXiv:1708.06519);
        random: control.
    """

    technique: ClassVar[str] = "structured_pruning"
    summary: ClassVar[str] = "removes channels and neurons; smaller and faster on every runtime"

    keep: Mapping[str, int] = field(default_factory=dict)
    importance: Importance = "l2"

    def __post_init__(self) -> None:
        for name, count in self.keep.items():
            if count < 1:
                raise InvalidRecipe(f"structured_pruning.keep[{name!r}]={count}: at least 1 channel must remain")
        object.__setattr__(self, "keep", dict(sorted(self.keep.items())))


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Tunes the compressed model against the original's logits (Hinton et al. 2015, arXiv:1503.02531).

    loss = alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * task loss

    temperature: T, > 0. alpha: 0..1, 0 is plain fine-tuning on labels.
    learning_rate: peak of the schedule. samples: training samples seen in total (the fidelity of the tuning).
    """

    technique: ClassVar[str] = "distillation"
    summary: ClassVar[str] = "tunes the smaller model with the original as its teacher"

    temperature: float = 4.0
    alpha: float = 0.9
    learning_rate: float = 0.01
    samples: int = 0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InvalidRecipe(f"distillation.temperature={self.temperature}: must be greater than 0")
        if not 0 <= self.alpha <= 1:
            raise InvalidRecipe(f"distillation.alpha={self.alpha}: must lie in 0..1")
        if not self.learning_rate > 0:
            raise InvalidRecipe(f"distillation.learning_rate={self.learning_rate}: must be greater than 0")
        if self.samples < 0:
            raise InvalidRecipe(f"distillation.samples={self.samples}: must not be negative")


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """Static int8: weights per output channel (symmetric), activations per tensor (affine), int32 biases.

    Jacob et al. 2018, arXiv:1712.05877. observer: how activation ranges are read off the calibration data.
    float_layers: layers left in float32.
    """

    technique: ClassVar[str] = "quantization"
    summary: ClassVar[str] = "static int8 that runs on integer kernels"

    bits: Literal[8] = 8
    observer: Observer = "percentile"
    float_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.bits != 8:
            raise InvalidRecipe(f"quantization.bits={self.bits}: only 8 is available")
        object.__setattr__(self, "float_layers", tuple(sorted(self.float_layers)))


Step = StructuredPruning | Distillation | Quantization
STEPS: tuple[type[StructuredPruning] | type[Distillation] | type[Quantization], ...] = (
    StructuredPruning,
    Distillation,
    Quantization,
)
_BY_NAME = {step.technique: step for step in STEPS}
_ORDER = [step.technique for step in STEPS]


@dataclass(frozen=True)
class Recipe:
    """An ordered list of steps: prune, then tune, then quantise. Each technique at most once."""

    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        names = [step.technique for step in self.steps]
        if len(set(names)) != len(names):
            raise InvalidRecipe(f"recipe {names}: each technique may stand in it once")
        if names != sorted(names, key=_ORDER.index):
            raise InvalidRecipe(
                f"recipe {names}: the order must be {_ORDER}; tuning needs the final shape, int8 the final weights"
            )

    @property
    def pruning(self) -> StructuredPruning | None:
        return next((s for s in self.steps if isinstance(s, StructuredPruning)), None)

    @property
    def distillation(self) -> Distillation | None:
        return next((s for s in self.steps if isinstance(s, Distillation)), None)

    @property
    def quantization(self) -> Quantization | None:
        return next((s for s in self.steps if isinstance(s, Quantization)), None)

    def to_json(self) -> dict[str, Any]:
        """`{"version": 1, "steps": [{"technique": name, ...fields}]}`; `from_json` gives an equal recipe back."""
        steps = [{"technique": step.technique, **dataclasses.asdict(step)} for step in self.steps]
        return {"version": RECIPE_VERSION, "steps": json.loads(json.dumps(steps))}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Recipe:
        """Raises InvalidRecipe for an unknown version, technique or field."""
        if document.get("version") != RECIPE_VERSION:
            raise InvalidRecipe(f"recipe version={document.get('version')!r}: this release reads {RECIPE_VERSION}")
        return cls(tuple(_step_from_json(step) for step in document.get("steps", ())))

    @property
    def key(self) -> str:
        """Content address: sha256 of the canonical JSON (hex)."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def _step_from_json(document: Mapping[str, Any]) -> Step:
    fields = dict(document)
    name = fields.pop("technique", None)
    if name not in _BY_NAME:
        raise InvalidRecipe(f"technique={name!r}: unknown; known are {sorted(_BY_NAME)}")
    config = _BY_NAME[name]
    known = {f.name for f in dataclasses.fields(config)}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise InvalidRecipe(f"{name}.{unknown[0]}: no such field; known are {sorted(known)}")
    if "float_layers" in fields:
        fields["float_layers"] = tuple(fields["float_layers"])
    return config(**fields)

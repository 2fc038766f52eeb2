"""What is done to a model, as data: the recipe that orders configurations of techniques.

This module imports no torch, so that the HTTP process can list techniques and read recipes.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from compressors.errors import InvalidRecipe
from compressors.recipes.batch_norm_folding import BatchNormFolding
from compressors.recipes.batch_norm_reestimation import BatchNormReestimation
from compressors.recipes.bias_correction import BiasCorrection
from compressors.recipes.centroid_tuning import CentroidTuning
from compressors.recipes.cross_layer_equalization import CrossLayerEqualization
from compressors.recipes.depth_pruning import DepthPruning
from compressors.recipes.distillation import Distillation
from compressors.recipes.dynamic_quantization import DynamicQuantization
from compressors.recipes.fields import read_fields
from compressors.recipes.float_format import FloatFormat
from compressors.recipes.gradual_pruning import GradualPruning
from compressors.recipes.l0_pruning import HardConcretePruning
from compressors.recipes.low_rank import LowRank
from compressors.recipes.nm_pruning import SemiStructuredPruning
from compressors.recipes.order import check_order
from compressors.recipes.power_of_two import PowerOfTwo
from compressors.recipes.quantization import Quantization
from compressors.recipes.quantization_aware_training import QuantizationAwareTraining
from compressors.recipes.step import Phase, Step, declared
from compressors.recipes.structured_pruning import StructuredPruning
from compressors.recipes.student import Student
from compressors.recipes.unstructured_pruning import UnstructuredPruning
from compressors.recipes.weight_averaging import WeightAveraging
from compressors.recipes.weight_only_quantization import WeightOnlyQuantization
from compressors.recipes.weight_sharing import WeightSharing
from compressors.recipes.width_scaling import WidthScaling

RECIPE_VERSION = 1

__all__ = [
    "RECIPE_VERSION",
    "STEPS",
    "BatchNormFolding",
    "BatchNormReestimation",
    "BiasCorrection",
    "CentroidTuning",
    "CrossLayerEqualization",
    "DepthPruning",
    "Distillation",
    "DynamicQuantization",
    "FloatFormat",
    "GradualPruning",
    "HardConcretePruning",
    "LowRank",
    "Phase",
    "PowerOfTwo",
    "Quantization",
    "QuantizationAwareTraining",
    "Recipe",
    "SemiStructuredPruning",
    "Step",
    "StructuredPruning",
    "Student",
    "UnstructuredPruning",
    "WeightAveraging",
    "WeightOnlyQuantization",
    "WeightSharing",
    "WidthScaling",
    "step_from_json",
    "step_to_json",
]

# Every technique's configuration, in the order in which a recipe would apply them.
STEPS: tuple[type[Step], ...] = tuple(sorted(declared().values(), key=lambda s: list(Phase).index(s.phase)))
S = TypeVar("S")
_AFTER_TUNING = (Phase.STATISTICS, Phase.FOLDING, Phase.ENCODING, Phase.CORRECTION)


@dataclass(frozen=True)
class Recipe:
    """An ordered list of steps; `compressors.recipes.order` says which orders are legal."""

    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        check_order([type(step) for step in self.steps])

    def first(self, kind: type[S]) -> S | None:
        """The first step of a kind."""
        return next((s for s in self.steps if isinstance(s, kind)), None)

    @property
    def pruning(self) -> StructuredPruning | None:
        return self.first(StructuredPruning)

    @property
    def distillation(self) -> Distillation | None:
        return self.first(Distillation)

    @property
    def quantization(self) -> Quantization | None:
        return self.first(Quantization)

    def around_tuning(self) -> tuple[Recipe, Recipe]:
        """(what comes before the last distillation, what comes after it). Without one: where it would stand."""
        places = [i for i, s in enumerate(self.steps) if isinstance(s, Distillation)]
        if places:
            return Recipe(self.steps[: places[-1]]), Recipe(self.steps[places[-1] + 1 :])
        late = [i for i, s in enumerate(self.steps) if s.phase in _AFTER_TUNING]
        at = late[0] if late else len(self.steps)
        return Recipe(self.steps[:at]), Recipe(self.steps[at:])

    def replaced(self, kind: type[Step], new: Step) -> Recipe:
        """The recipe with its first step of `kind` replaced."""
        at = next(i for i, s in enumerate(self.steps) if isinstance(s, kind))
        return Recipe((*self.steps[:at], new, *self.steps[at + 1 :]))

    @property
    def cost_key(self) -> str:
        """Equal for recipes that give files of the same shapes and bytes, whatever the weights' values (JSON)."""
        steps = [
            {k: v for k, v in document.items() if k not in step.value_fields}
            for step, document in zip(self.steps, self.to_json()["steps"], strict=True)
            if step.phase not in (Phase.TUNING, Phase.STATISTICS)
        ]
        return json.dumps(steps, sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        """`{"version": 1, "steps": [{"technique": name, ...fields}]}`; `from_json` gives an equal recipe back."""
        return {"version": RECIPE_VERSION, "steps": [step_to_json(step) for step in self.steps]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Recipe:
        """Raises InvalidRecipe for an unknown version, technique or field, and for a value of a wrong type."""
        unknown = sorted(set(document) - {"version", "steps"})
        if unknown:
            raise InvalidRecipe(f"recipe {unknown[0]}: no such field; a recipe has version and steps")
        if document.get("version") != RECIPE_VERSION:
            raise InvalidRecipe(f"recipe version={document.get('version')!r}: this release reads {RECIPE_VERSION}")
        steps = document.get("steps", ())
        if not isinstance(steps, Sequence) or isinstance(steps, str):
            raise InvalidRecipe(f"recipe steps={steps!r}: must be a list of steps")
        return cls(tuple(step_from_json(step) for step in steps))

    @property
    def key(self) -> str:
        """Content address: sha256 of the canonical JSON (hex)."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def step_to_json(step: Step) -> dict[str, Any]:
    """`{"technique": name, ...fields}`."""
    document: dict[str, Any] = json.loads(json.dumps({"technique": step.technique, **dataclasses.asdict(step)}))
    return document


def step_from_json(document: Any) -> Step:
    """Raises InvalidRecipe for an unknown technique or field, and for a value of a wrong type."""
    if not isinstance(document, Mapping):
        raise InvalidRecipe(f"recipe step {document!r}: must be a mapping with a field 'technique'")
    fields = dict(document)
    name = fields.pop("technique", None)
    known = declared()
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InvalidRecipe(f"technique={name!r}: unknown; {hint}known are {sorted(known)}")
    return known[name](**read_fields(known[name], fields))

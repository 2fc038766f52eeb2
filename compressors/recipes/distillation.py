"""Configuration of tuning with teachers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step

Layers = Mapping[str, str] | tuple[str, ...]


@step
@dataclass(frozen=True, kw_only=True)
class Distillation(Step):
    """Tunes the compressed model against the original's logits (Hinton et al. 2015, arXiv:1503.02531).

    loss = alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * task loss
           + feature_weight * FEATURES + attention_weight * ATTENTION + relation_weight * RELATION

    temperature: T, > 0. alpha: 0..1, 0 is plain fine-tuning on labels, 1 reads no labels (but for places that do not
        count, such as padding): targets may then be anything of the right shape.
    learning_rate: peak of the schedule. samples: training samples seen in total (the fidelity of the tuning).
    teachers: names of further models that teach too; the teacher's logits are the mean over all (Hinton et al. 2015,
        section 3, in logits). original_teaches: whether the original is one of them.

    Inner layers are given as names, or as a mapping of the student's names to the original's where they differ:
    features: outputs to imitate, through an adapter where channels have gone (FitNets, Romero et al. 2015,
        arXiv:1412.6550, eq. 3); see `compressors.distillation_features`.
    attention: layers whose places should weigh as much as the original's (Zagoruyko & Komodakis 2017, arXiv:1612.03928,
        eq. 2); see `compressors.distillation_attention`.
    relation_weight: above 0, rows are to lie to each other as they do for the original, in distances and angles (Park
        et al. 2019, arXiv:1904.05068); relation_layers: where; empty: in the model's outputs. See
        `compressors.distillation_relation`.
    """

    technique: ClassVar[str] = "distillation"
    summary: ClassVar[str] = "tunes the smaller model with the original, and further models, as its teachers"
    phase: ClassVar[Phase] = Phase.TUNING
    repeatable: ClassVar[bool] = True
    needs_training: ClassVar[bool] = True
    value_fields: ClassVar[frozenset[str]] = frozenset(
        {
            "temperature",
            "alpha",
            "learning_rate",
            "samples",
            "teachers",
            "original_teaches",
            "features",
            "feature_weight",
            "attention",
            "attention_weight",
            "relation_weight",
            "relation_layers",
        }
    )

    temperature: float = 4.0
    alpha: float = 0.9
    learning_rate: float = 0.01
    samples: int = 0
    teachers: tuple[str, ...] = ()
    original_teaches: bool = True
    features: Layers = ()
    feature_weight: float = 1.0
    attention: Layers = ()
    attention_weight: float = 1.0
    relation_weight: float = 0.0
    relation_layers: Layers = ()

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InvalidRecipe(f"distillation.temperature={self.temperature}: must be greater than 0")
        if not 0 <= self.alpha <= 1:
            raise InvalidRecipe(f"distillation.alpha={self.alpha}: must lie in 0..1")
        if not self.learning_rate > 0:
            raise InvalidRecipe(f"distillation.learning_rate={self.learning_rate}: must be greater than 0")
        for name in ("samples", "feature_weight", "attention_weight", "relation_weight"):
            if not getattr(self, name) >= 0:
                raise InvalidRecipe(f"distillation.{name}={getattr(self, name)}: must not be negative")
        self._check_teachers()
        for name in ("features", "attention", "relation_layers"):
            object.__setattr__(self, name, dict(sorted(pairs(getattr(self, name)).items())))
        if self.relation_layers and not self.relation_weight:
            raise InvalidRecipe(
                f"distillation.relation_layers={list(self.relation_layers)}: has no effect at relation_weight=0; "
                "give a weight, such as 1"
            )

    def _check_teachers(self) -> None:
        twice = sorted({name for name in self.teachers if self.teachers.count(name) > 1})
        if twice:
            raise InvalidRecipe(f"distillation.teachers: {twice[0]!r} is named more than once; a teacher counts once")
        if self.teachers and not self.alpha:
            raise InvalidRecipe(
                f"distillation.teachers={list(self.teachers)}: teach logits, which alpha=0 ignores; raise alpha"
            )
        if not self.original_teaches and not self.teachers:
            raise InvalidRecipe(
                "distillation.original_teaches=False: leaves no teacher; name one in teachers, or set alpha=0"
            )

    @property
    def reads_original_outputs(self) -> bool:
        """Whether the loss looks at the original's outputs, so that batches should bring them along."""
        return (self.alpha > 0 and self.original_teaches) or (self.relation_weight > 0 and not self.relation_layers)


def pairs(layers: Layers) -> dict[str, str]:
    """The original's layer by the student's."""
    return dict(layers) if isinstance(layers, Mapping) else {name: name for name in layers}

"""What a distillation trains besides the model's own weights, and the loss it follows.

Inner layers are read by forward hooks that last for one batch, so that nothing of this stays on the tuned model, in its
checkpoint or in its file. Adapters are seeded: a run that is taken up again starts with fresh ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from compressors.distillation import distillation_loss
from compressors.distillation_attention import attention_loss, check_places
from compressors.distillation_features import adapter, feature_loss
from compressors.distillation_relation import relation_loss
from compressors.errors import InvalidRecipe
from compressors.further_models import check_same_interface, in_eval_mode, named_model
from compressors.layer_outputs import captured, channel_axis, check_layers
from compressors.recipe import Distillation
from compressors.recipes.distillation import pairs
from compressors.registry import Context
from compressors.tasks import Task
from compressors.training import Batch, Objective, first_output, parameters_for


@dataclass(frozen=True)
class TuningPlan:
    """objective: as `tune` takes it; None: the loss on logits and labels alone. further: parameter groups for
    `make_optimizer`."""

    objective: Objective | None = None
    further: tuple[dict[str, Any], ...] = ()


def tuning_plan(model: fx.GraphModule, config: Distillation, context: Context) -> TuningPlan:
    """How to tune `model`, which is left as it is. Without teachers and inner layers it costs nothing.

    Raises InvalidRecipe for layers and teachers that do not exist or do not fit.
    """
    check_names(model, config, context)
    inner = _inner_layers(config)
    if not inner and not config.teachers and not config.relation_weight:
        return TuningPlan()
    assert context.training is not None
    if context.original is None:
        raise InvalidRecipe("distillation: reads the original's outputs and it is not given")
    original = in_eval_mode(context.original)
    teachers = tuple(in_eval_mode(context.models[name]) for name in config.teachers)
    for name, teacher in zip(config.teachers, teachers, strict=True):
        check_same_interface(f"distillation.teachers={name!r}: it", teacher, original, context.example_inputs)
    objective = _Taught(context.training.task, config, original, teachers)
    if inner:
        objective.prepare(in_eval_mode(model), context)
    adapters = nn.ModuleList(objective.adapters.values())
    return TuningPlan(objective, tuple(group for group in parameters_for(adapters) if group["params"]))


def check_names(model: fx.GraphModule, config: Distillation, context: Context) -> None:
    """Raises InvalidRecipe for layers and teachers that do not exist; runs nothing."""
    for name in config.teachers:
        named_model("distillation.teachers", name, context.models)
    for where, layers in _inner_layers(config).items():
        check_layers(f"distillation.{where}", model, "student", layers)
        if context.original is not None:
            check_layers(f"distillation.{where}", context.original, "original", layers.values())


def _inner_layers(config: Distillation) -> dict[str, dict[str, str]]:
    """The original's layers by the student's, per field that names any and has a weight."""
    found = {
        "features": pairs(config.features) if config.feature_weight else {},
        "attention": pairs(config.attention) if config.attention_weight else {},
        "relation_layers": pairs(config.relation_layers),
    }
    return {where: layers for where, layers in found.items() if layers}


@dataclass
class _Taught:
    """The objective. adapters: per student's layer. axes: of their channels."""

    task: Task
    config: Distillation
    original: fx.GraphModule
    teachers: tuple[fx.GraphModule, ...]
    adapters: dict[str, nn.Module] = field(default_factory=dict)
    axes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inner = _inner_layers(self.config)
        self.features = inner.get("features", {})
        self.attention = inner.get("attention", {})
        self.relations = inner.get("relation_layers", {})
        every = (self.features, self.attention, self.relations)
        self.ours = [name for layers in every for name in layers]
        self.theirs = [name for layers in every for name in layers.values()]

    def prepare(self, model: fx.GraphModule, context: Context) -> None:
        """Makes the adapters; runs `model`, in eval mode, once. Raises InvalidRecipe for shapes that do not fit."""
        with torch.no_grad():
            with captured(model, self.ours) as student:
                model(*context.example_inputs)
            with captured(self.original, self.theirs) as teacher:
                self.original(*context.example_inputs)
        self.axes = {name: channel_axis(model.get_submodule(name), student[name]) for name in self.ours}
        for ours, theirs in self.attention.items():
            check_places(f"distillation.attention={ours!r}", student[ours], teacher[theirs], self.axes[ours])
        self.adapters = {
            ours: adapter(
                f"distillation.features={ours!r}", student[ours], teacher[theirs], self.axes[ours], context.seed + index
            )
            for index, (ours, theirs) in enumerate(self.features.items())
        }

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs, target, stored = batch
        with captured(model, self.ours) as student:
            output = first_output(model(*inputs)).float()
        answer, teacher, logits = self._teach(inputs, stored)
        loss = distillation_loss(self.task, output, target, logits, self.config)
        with torch.autocast("cpu", enabled=False):
            return loss + self._inner_loss(student, teacher) + self._relation(output, answer)

    @torch.no_grad()
    def _teach(
        self, inputs: tuple[Tensor, ...], stored: Tensor | None
    ) -> tuple[Tensor | None, dict[str, Tensor], Tensor | None]:
        """The original's output, its inner layers' outputs, and the logits of all teachers together.

        stored: the original's output, where it has been computed already.
        """
        inner: dict[str, Tensor] = {}
        if self.theirs or (stored is None and self.config.reads_original_outputs):
            with captured(self.original, self.theirs) as inner:
                answer = first_output(self.original(*inputs)).float()
            stored = answer if stored is None else stored
        if not self.config.alpha:
            return stored, inner, None
        given = [first_output(teacher(*inputs)).float() for teacher in self.teachers]
        if self.config.original_teaches:
            assert stored is not None
            given.append(stored)
        return stored, inner, torch.stack(given).mean(0)

    def _inner_loss(self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
        total = torch.zeros(())
        for ours, theirs in self.features.items():
            adapted = self.adapters[ours](student[ours].float())
            total = total + self.config.feature_weight * feature_loss(adapted, teacher[theirs].float())
        for ours, theirs in self.attention.items():
            own = attention_loss(student[ours].float(), teacher[theirs].float(), self.axes[ours])
            total = total + self.config.attention_weight * own
        for ours, theirs in self.relations.items():
            own = relation_loss(student[ours].float(), teacher[theirs].float())
            total = total + self.config.relation_weight * own
        return total

    def _relation(self, output: Tensor, answer: Tensor | None) -> Tensor:
        """Of the outputs, unless it is asked of layers."""
        if not self.config.relation_weight or self.relations:
            return torch.zeros(())
        assert answer is not None
        return self.config.relation_weight * relation_loss(output, answer)

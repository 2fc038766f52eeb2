"""Gradual pruning as a step of a recipe."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from compressors.errors import InvalidRecipe
from compressors.held_out import HeldOut
from compressors.layer_weights import LayerWeight, selected_weights
from compressors.recipe import Distillation, GradualPruning
from compressors.registry import Context, register
from compressors.sparsity import masks_of, set_masks
from compressors.training import Hook
from compressors.weight_scores import masks_at, score_weights

_NAME = GradualPruning.technique


@register(GradualPruning)
def prune_gradually(model: fx.GraphModule, config: GradualPruning, context: Context) -> fx.GraphModule:
    """A tuned copy with zeros and their masks. A draft is pruned at once, to the full sparsity.

    Raises InvalidRecipe for layers that do not exist, and for a `max_drop` that the task's metric or the number of
    tuning rows cannot serve.
    """
    pruned: fx.GraphModule = copy.deepcopy(model)
    weights = selected_weights(pruned, config.layers, f"{_NAME}.layers")
    schedule = _Schedule(pruned, weights, config)
    if context.draft:
        schedule.raise_to(config.sparsity)
        return pruned.eval()
    training = context.training
    assert training is not None
    metric: Callable[[], float] | None = None
    if config.max_drop is not None:
        _check_metric(context)
        held_out = HeldOut(training, config.held_out, context.seed)
        training = held_out.training
        metric = lambda: held_out.metric(pruned)  # noqa: E731
    tuning = Distillation(
        samples=config.samples,
        learning_rate=config.learning_rate,
        temperature=config.temperature,
        alpha=config.alpha,
    )
    schedule.watch(metric)
    training.tune(pruned, tuning, seed=context.seed, hooks=[schedule])
    schedule.finish()
    return pruned.eval()


def _check_metric(context: Context) -> None:
    assert context.training is not None
    task = context.training.task
    if task.description.metric(task.options.metric).needs_group:
        raise InvalidRecipe(
            f"{_NAME}.max_drop: {task.options.metric} compares rows inside groups, which tuning rows do not have; "
            "leave max_drop out"
        )


@dataclass(frozen=True)
class _Good:
    """A state in which the metric was good enough."""

    values: dict[str, Tensor]
    masks: dict[str, Tensor]
    sparsity: float


class _Schedule(Hook):
    """Raises the sparsity of a model along the schedule, and takes it back if the metric falls."""

    def __init__(self, model: fx.GraphModule, weights: Sequence[LayerWeight], config: GradualPruning) -> None:
        self._model = model
        self._weights = weights
        self._config = config
        self._earlier = masks_of(model, weights)
        self._masks: dict[str, Tensor] = {}
        self._sparsity = -1.0
        self._batches = 0
        self._metric: Callable[[], float] | None = None
        self._least = -torch.inf
        self._good: _Good | None = None
        self._stopped = False

    def watch(self, metric: Callable[[], float] | None) -> None:
        """metric: of the model as it is; None: sparsity follows the schedule whatever happens."""
        self._metric = metric
        if metric is not None:
            assert self._config.max_drop is not None
            self._least = metric() - self._config.max_drop
            self._good = self._state()

    def before_batch(self, model: nn.Module, progress: float) -> None:
        due = self._batches % self._config.every == 0
        self._batches += 1
        target = self._config.sparsity_at(progress)
        if due and not self._stopped and target > self._sparsity and self._is_good():
            self.raise_to(target)

    @torch.no_grad()
    def after_step(self, model: nn.Module, progress: float) -> None:
        for weight in self._weights:
            if weight.name in self._masks:
                weight.tensor.masked_fill_(~self._masks[weight.name], 0.0)

    def raise_to(self, sparsity: float) -> None:
        scores = score_weights(self._model, self._weights, self._config.importance)
        alive = self._masks or self._earlier
        self._masks = masks_at(self._weights, scores, sparsity, scope=self._config.scope, alive=alive)
        self._sparsity = sparsity
        set_masks(self._model, self._weights, self._masks)

    def finish(self) -> None:
        """A run of few batches may not have reached the end of the schedule."""
        self._model.eval()
        if not self._stopped and self._sparsity < self._config.sparsity and self._is_good():
            self.raise_to(self._config.sparsity)
        self._is_good()

    def _is_good(self) -> bool:
        """Whether sparsity may rise further. If the metric has fallen too far, the last good state comes back."""
        if self._metric is None or self._good is None:
            return True
        if self._metric() >= self._least:
            self._good = self._state()
            return True
        self._model.load_state_dict(self._good.values)
        self._masks, self._sparsity, self._stopped = self._good.masks, self._good.sparsity, True
        if self._masks:
            set_masks(self._model, self._weights, self._masks)
        return False

    def _state(self) -> _Good:
        values = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        return _Good(values, dict(self._masks), self._sparsity)

"""Averages fine-tuned copies of a model."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from compressors.batch_norm_statistics import reestimate
from compressors.errors import InvalidRecipe
from compressors.recipe import Distillation, WeightAveraging
from compressors.registry import Context, register
from compressors.training import Training, first_output
from compressors.weight_averaging import average, check_same_architecture, greedy_soup

SCORING_BATCH = 128
OWN = "the model at hand"

Positions = npt.NDArray[np.int64]


@register(WeightAveraging)
def average_weights(model: fx.GraphModule, config: WeightAveraging, context: Context) -> fx.GraphModule:
    """The average, in eval mode; a draft is a plain copy.

    Raises InvalidRecipe for models that are not given or have another architecture.
    """
    named = _named(model, config, context)
    if context.draft:
        plain: fx.GraphModule = copy.deepcopy(model)
        return plain.eval()
    tuning, held_out = _split(config, context)
    copies = named or _tuned(model, config, context, tuning)

    def prepare(candidate: fx.GraphModule) -> None:
        reestimate(candidate, context.batches())
        candidate.eval()

    if not config.greedy:
        mean = average(list(copies.values()))
        prepare(mean)
        return mean
    training = context.training
    assert training is not None
    return greedy_soup(copies, lambda m: held_out_score(m, training, held_out), prepare=prepare).model


def _named(model: fx.GraphModule, config: WeightAveraging, context: Context) -> dict[str, fx.GraphModule]:
    """The model at hand and the given ones, in eval mode; nothing if none are named."""
    if not config.models:
        return {}
    copies = {OWN: model}
    for name in config.models:
        if name not in context.models:
            near = difflib.get_close_matches(name, context.models, n=3, cutoff=0.4) or sorted(context.models)
            hint = f"given are {near}" if near else "none are given"
            raise InvalidRecipe(f"weight_averaging.models: {name!r} is not given; {hint}")
        copies[name] = context.models[name]
    try:
        check_same_architecture(copies)
    except InvalidRecipe as error:
        raise InvalidRecipe(f"weight_averaging.models: {error}") from None
    return {name: copy.deepcopy(found).eval() for name, found in copies.items()}


def _split(config: WeightAveraging, context: Context) -> tuple[Training | None, Positions]:
    """Training on the rows that are left, and the positions of those held out for the greedy choice."""
    training = context.training
    if not config.greedy or training is None:
        return training, np.empty(0, dtype=np.int64)
    shuffled = np.random.default_rng((context.seed, 11)).permutation(training.rows).astype(np.int64)
    count = min(max(round(config.held_out * training.rows), 1), training.rows - 1)
    held_out, left = np.sort(shuffled[:count]), np.sort(shuffled[count:])
    fetch = training.fetch
    return replace(training, rows=len(left), fetch=lambda positions: fetch(left[positions])), held_out


def _tuned(
    model: fx.GraphModule, config: WeightAveraging, context: Context, training: Training | None
) -> Mapping[str, fx.GraphModule]:
    """Copies tuned with rates and seeds of their own."""
    assert training is not None
    copies = {}
    for index, rate in enumerate(config.rates()):
        tuned = copy.deepcopy(model)
        tuning = Distillation(
            temperature=config.temperature, alpha=config.alpha, learning_rate=rate, samples=config.samples
        )
        training.tune(tuned, tuning, seed=context.seed + index)
        copies[f"copy {index + 1}"] = tuned.eval()
    return copies


@torch.no_grad()
def held_out_score(model: fx.GraphModule, training: Training, positions: Positions) -> float:
    """The task's metric on these tuning rows; minus the loss where the metric compares rows within groups."""
    task = training.task
    grouped = task.description.metric(task.options.metric).needs_group
    statistics, losses = [], []
    for start in range(0, len(positions), SCORING_BATCH):
        inputs, target, _ = training.fetch(positions[start : start + SCORING_BATCH])
        outputs = first_output(model(*inputs)).float()
        if grouped:
            losses.append(float(task.loss(outputs, target)) * len(target))
        else:
            statistics.append(task.statistics(outputs.numpy(), target.numpy()))
    return -sum(losses) / len(positions) if grouped else task.metric_of(np.concatenate(statistics))

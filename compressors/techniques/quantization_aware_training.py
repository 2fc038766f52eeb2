"""Quantisation-aware training as a step: a simulation is trained and its codes and ranges are written back."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from compressors.batch_norm_statistics import batch_norms
from compressors.encodings.integers import IntegerCodes
from compressors.errors import InvalidRecipe
from compressors.quantization_simulation import simulate
from compressors.recipe import Distillation, QuantizationAwareTraining
from compressors.registry import Context, register
from compressors.state import StaticQuantization, state_of
from compressors.training import Batch, Hook, Objective, distilling


class _FrozenNorms(Hook):
    """Batch norms keep the statistics that the file holds."""

    def before_batch(self, model: nn.Module, progress: float) -> None:
        for norm in batch_norms(model):
            norm.eval()


@register(QuantizationAwareTraining)
def train_quantized(model: fx.GraphModule, config: QuantizationAwareTraining, context: Context) -> fx.GraphModule:
    """A copy with trained codes, scales and ranges; a draft is a plain copy.

    Raises InvalidRecipe if nothing about the model is quantised to integers.
    """
    trained: fx.GraphModule = copy.deepcopy(model)
    state = state_of(trained)
    if context.draft:
        return trained.eval()
    integers = any(isinstance(encoding, IntegerCodes) for encoding in state.encodings.values())
    if not integers and not isinstance(state.activations, StaticQuantization):
        raise InvalidRecipe(
            f"{config.technique}: no weights or activations are integers; put quantization in front of it"
        )
    assert context.training is not None
    simulation = simulate(trained, context.example_inputs, learned=config.learned_steps)
    tuning = Distillation(
        temperature=config.temperature,
        alpha=config.alpha,
        learning_rate=config.learning_rate,
        samples=config.samples,
    )
    objective = _in_float32(distilling(context.training.task, tuning))
    context.training.tune(simulation.module, tuning, seed=context.seed, objective=objective, hooks=[_FrozenNorms()])
    simulation.write_back(trained, context.example_inputs)
    return trained.eval()


def _in_float32(objective: Objective) -> Objective:
    """bfloat16 has fewer digits than the grids that are to be trained."""

    def compute(model: nn.Module, batch: Batch) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return objective(model, batch)

    return compute

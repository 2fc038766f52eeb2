"""Pruning by trained gates as a step of a recipe."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from compressors.hard_concrete import HardConcrete
from compressors.layer_weights import LayerWeight, selected_weights
from compressors.recipe import Distillation, HardConcretePruning
from compressors.registry import Context, register
from compressors.sparsity import masks_of, set_masks
from compressors.substitution import substituted
from compressors.training import Batch, distilling
from compressors.weight_scores import masks_at, unit_masks

_NAME = HardConcretePruning.technique
_DRAFT_SPARSITY = 0.5


@register(HardConcretePruning)
def prune_by_gates(model: fx.GraphModule, config: HardConcretePruning, context: Context) -> fx.GraphModule:
    """A tuned copy with zeros and their masks. A draft removes the smallest, half of them if no sparsity is wanted.

    Raises InvalidRecipe for layers that do not exist.
    """
    pruned: fx.GraphModule = copy.deepcopy(model)
    weights = selected_weights(pruned, config.layers, f"{_NAME}.layers")
    earlier = masks_of(pruned, weights)
    gates = [_Gate.of(weight, config) for weight in weights]
    if context.draft:
        sparsity = _DRAFT_SPARSITY if config.sparsity is None else config.sparsity
        sizes = {gate.weight.name: gate.size() for gate in gates}
        for weight in weights:  # layer by layer: magnitudes do not foretell which layers the gates will thin out
            set_masks(pruned, [weight], _closed([weight], sizes, sparsity, config, earlier))
        return pruned.eval()
    assert context.training is not None
    tuning = Distillation(
        samples=config.samples,
        learning_rate=config.learning_rate,
        temperature=config.temperature,
        alpha=config.alpha,
    )
    settling = int(config.settle * config.samples)
    _train_gates(pruned, gates, config, context, replace(tuning, samples=config.samples - settling))
    chances = {gate.weight.name: gate.log_alpha().detach().sigmoid() for gate in gates}
    with torch.no_grad():
        for gate in gates:
            gate.weight.tensor.mul_(gate.law.final(gate.log_alpha()))
    if config.sparsity is None:
        masks = {w.name: (w.tensor.detach() != 0) & earlier.get(w.name, torch.tensor(True)) for w in weights}
    else:
        masks = _closed(weights, chances, config.sparsity, config, earlier)
    set_masks(pruned, weights, masks)
    if settling:
        context.training.tune(pruned, replace(tuning, samples=settling), seed=context.seed + 1)
    return pruned.eval()


def _train_gates(
    model: fx.GraphModule,
    gates: Sequence[_Gate],
    config: HardConcretePruning,
    context: Context,
    tuning: Distillation,
) -> None:
    assert context.training is not None
    plain = distilling(context.training.task, tuning)
    total = sum(gate.weight.tensor.numel() for gate in gates)
    wanted = 0.0 if config.sparsity is None else 1 - config.sparsity

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        gated = {}
        for gate in gates:
            gated.update(dict.fromkeys(gate.weight.names, gate.weight.tensor * gate.law.sample(gate.log_alpha())))
        with substituted(module, gated):
            loss = plain(module, batch)
        # Outside of mixed precision, in which a sum over all weights would lose its digits.
        with torch.autocast("cpu", enabled=False):
            share = torch.stack([gate.open_weights() for gate in gates]).sum() / total
            return loss + config.strength * (share - wanted).clamp_min(0)

    # The penalty's gradient of one gate among many is tiny; scaled so, it moves them by gate_rate * dp/dlog_alpha.
    group = {
        "params": [gate.position for gate in gates],
        "weight_decay": 0.0,
        "lr": config.gate_rate * total / max(config.strength, 1.0),
        "fixed": True,
    }
    context.training.tune(model, tuning, seed=context.seed, objective=objective, further=[group])


def _closed(
    weights: Sequence[LayerWeight],
    scores: dict[str, Tensor],
    sparsity: float,
    config: HardConcretePruning,
    earlier: dict[str, Tensor],
) -> dict[str, Tensor]:
    """Masks that remove `sparsity` of all weights, the least scores first."""
    if config.unit == "channel":
        return unit_masks(weights, scores, sparsity, alive=earlier)
    return masks_at(weights, scores, sparsity, alive=earlier)


@dataclass(frozen=True, eq=False)
class _Gate:
    """Gates of one weight. position: log_alpha * sqrt(weights behind a gate), so that gates in front of many weights
    move as fast as those in front of one."""

    weight: LayerWeight
    law: HardConcrete
    position: nn.Parameter
    behind: int

    @classmethod
    def of(cls, weight: LayerWeight, config: HardConcretePruning) -> _Gate:
        shape = list(weight.tensor.shape)
        if config.unit == "channel":
            shape = [size if axis == weight.output_axis else 1 for axis, size in enumerate(shape)]
        behind = weight.tensor.numel() // max(torch.Size(shape).numel(), 1)
        start = torch.full(shape, config.initial_open).logit() * behind**0.5
        law = HardConcrete(config.gate_temperature, config.low, config.high)
        return cls(weight, law, nn.Parameter(start), behind)

    def log_alpha(self) -> Tensor:
        result: Tensor = self.position / self.behind**0.5
        return result

    def open_weights(self) -> Tensor:
        """Expected number of weights behind open gates."""
        opened: Tensor = self.law.open_probability(self.log_alpha()).sum() * self.behind
        return opened

    def size(self) -> Tensor:
        """Root mean square of the weights behind each gate."""
        squares = self.weight.tensor.detach().square()
        if self.behind == 1:
            return squares.sqrt()
        axes = [axis for axis in range(squares.dim()) if axis != self.weight.output_axis]
        return torch.sqrt(squares.mean(axes, keepdim=True))

"""Tuning of shared values as a step of a recipe."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from compressors.codebook_fitting import shortened
from compressors.encodings.codebook import Codebook, of_indices
from compressors.errors import InvalidRecipe
from compressors.layer_weights import LayerWeight, layer_weights
from compressors.recipe import CentroidTuning, Distillation
from compressors.registry import Context, register
from compressors.state import state_of
from compressors.substitution import substituted
from compressors.training import Batch, distilling
from compressors.weight_encoding import store_encoding


@register(CentroidTuning)
def tune_centroids(model: fx.GraphModule, config: CentroidTuning, context: Context) -> fx.GraphModule:
    """A copy with trained codebooks; a draft is a plain copy. Raises InvalidRecipe if no layer has a codebook."""
    tuned: fx.GraphModule = copy.deepcopy(model)
    encodings = state_of(tuned).encodings
    shared = [
        _Shared.of(weight, encoding)
        for weight in layer_weights(tuned)
        if isinstance(encoding := encodings.get(weight.name), Codebook)
    ]
    if not shared:
        raise InvalidRecipe("centroid_tuning: no layer has shared values; put weight_sharing in front of it")
    if context.draft:
        return tuned.eval()
    assert context.training is not None
    tuning = Distillation(
        samples=config.samples,
        learning_rate=config.learning_rate,
        temperature=config.temperature,
        alpha=config.alpha,
    )
    plain = distilling(context.training.task, tuning)

    def objective(module: nn.Module, batch: Batch) -> Tensor:
        decoded = {name: tensor for part in shared for name, tensor in part.decoded().items()}
        with substituted(module, decoded):
            return plain(module, batch)

    group = {"params": [part.moves for part in shared], "weight_decay": 0.0}
    context.training.tune(tuned, tuning, seed=context.seed, objective=objective, further=[group])
    for part in shared:
        store_encoding(tuned, part.weight, part.codebook())
    return tuned.eval()


@dataclass(frozen=True, eq=False)
class _Shared:
    """A weight and its shared values, c = start + moves / sqrt(members), so that a step of gradient descent on `moves`
    changes c by the mean gradient of its weights. A value of 0 does not move."""

    weight: LayerWeight
    codes: Tensor
    start: Tensor
    scale: Tensor
    moves: nn.Parameter

    @classmethod
    def of(cls, weight: LayerWeight, book: Codebook) -> _Shared:
        codes = torch.from_numpy(book.codes).long()
        start = torch.from_numpy(book.centroids)
        members = torch.bincount(codes.flatten(), minlength=len(start)).clamp_min(1)
        scale = (start != 0) / members.sqrt()
        return cls(weight, codes, start, scale, nn.Parameter(torch.zeros_like(start)))

    def decoded(self) -> dict[str, Tensor]:
        values = (self.start + self.moves * self.scale)[self.codes]
        return dict.fromkeys(self.weight.names, values)

    def codebook(self) -> Codebook:
        return of_indices(self.codes.numpy(), shortened((self.start + self.moves.detach() * self.scale).numpy()))

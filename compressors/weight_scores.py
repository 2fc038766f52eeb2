"""How important single weights are, and which of them stay.

Scores are not negative; a weight that a mask has removed already has none to defend.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, fx

from compressors.errors import InvalidRecipe
from compressors.layer_columns import has_columns, sample_columns
from compressors.layer_weights import LayerWeight
from compressors.lockstep import walk
from compressors.recipes.sparsity_fields import WeightScore
from compressors.registry import Context

Scope = Literal["global", "layer", "row"]
# Columns per layer that input norms are taken from.
_COLUMNS = 4096


def inputs_for(importance: WeightScore, context: Context, technique: str) -> Iterable[tuple[Tensor, ...]] | None:
    """Calibration inputs if the score reads any and this is no draft. Raises InvalidRecipe if there are none."""
    if importance != "wanda" or context.draft:
        return None
    if context.calibration is None:
        raise InvalidRecipe(
            f"{technique} reads calibration inputs (importance='wanda') and none are given; add data, or use l1"
        )
    return context.batches()


def score_weights(
    model: fx.GraphModule,
    weights: Sequence[LayerWeight],
    importance: WeightScore,
    *,
    batches: Iterable[tuple[Tensor, ...]] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Per weight's name its scores (shape of the tensor); see `UnstructuredPruning` for the formulas.

    batches: calibration inputs for wanda; None falls back to l2.
    """
    inputs: dict[str, Tensor] = {}
    if importance == "wanda" and batches is not None:
        inputs = input_norms(model, weights, batches, seed)
    generator = torch.Generator().manual_seed(seed)
    scores = {}
    for weight in weights:
        size = weight.tensor.detach().abs()
        if importance == "random":
            size = torch.rand(size.shape, generator=generator)
        elif importance == "lamp":
            size = _lamp(size)
        elif importance != "l1":
            size = size * inputs.get(weight.name, torch.ones(()))
            size = size / size.square().mean().sqrt().clamp_min(1e-30)
        scores[weight.name] = size
    return scores


def input_norms(
    model: fx.GraphModule, weights: Sequence[LayerWeight], batches: Iterable[tuple[Tensor, ...]], seed: int
) -> dict[str, Tensor]:
    """Root mean square of the input that each weight multiplies, in a shape that broadcasts to the weight; only for
    linear layers and convolutions, and for a layer that is called more than once, over its first call."""
    wanted = {weight.layers[0]: weight for weight in weights if weight.name != weight.layers[0]}
    norms: dict[str, Tensor] = {}

    def visit(node: fx.Node, inputs: Sequence[Sequence[Tensor]]) -> None:
        weight = wanted.pop(str(node.target), None)
        if weight is None:
            return
        layer = model.get_submodule(weight.layers[0])
        if has_columns(layer):
            columns = sample_columns(layer, inputs[0], _COLUMNS, seed)
            norm = columns.square().mean(2).sqrt()[:, None]  # (groups, 1, numbers per row)
            rows = norm.expand(-1, weight.tensor.shape[0] // norm.shape[0], -1)
            norms[weight.name] = rows.reshape(weight.tensor.shape)

    training = model.training
    walk((model.eval(),), batches, visit)
    model.train(training)
    return norms


def masks_at(
    weights: Sequence[LayerWeight],
    scores: Mapping[str, Tensor],
    sparsity: float,
    *,
    scope: Scope = "global",
    layer_sparsity: Mapping[str, float] | None = None,
    alive: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Per weight's name True where it stays; the least important `sparsity` of each group of weights goes, rounded to
    the nearest number; ties go in order of position. At least one weight of a tensor stays.

    alive: earlier masks; what they have removed goes first, and never comes back.
    """
    ranked = {w.name: _defended(scores[w.name], (alive or {}).get(w.name)) for w in weights}
    shares = {w.name: _share(w, sparsity, layer_sparsity or {}) for w in weights}
    together = [w for w in weights if scope == "global" and shares[w.name] is None]
    masks: dict[str, Tensor] = {}
    if together:
        joined = torch.cat([ranked[w.name].flatten() for w in together])
        parts = torch.split(_without_least(joined[None], sparsity)[0], [w.tensor.numel() for w in together])
        masks = {w.name: part.reshape(w.tensor.shape) for w, part in zip(together, parts, strict=True)}
    for weight in weights:
        if weight.name in masks:
            continue
        share = shares[weight.name]
        rows = ranked[weight.name].movedim(weight.output_axis, 0)
        flat = rows.reshape(len(rows), -1) if scope == "row" else rows.reshape(1, -1)
        kept = _without_least(flat, sparsity if share is None else share)
        masks[weight.name] = kept.reshape(rows.shape).movedim(0, weight.output_axis)
    if alive:
        masks = {name: mask & alive[name] if name in alive else mask for name, mask in masks.items()}
    return masks


def unit_masks(
    weights: Sequence[LayerWeight],
    scores: Mapping[str, Tensor],
    sparsity: float,
    *,
    alive: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Masks that remove whole output channels, the least scores of all weights first, until the next one would bring
    the share of removed weights further from `sparsity`. At least one channel of a weight stays.

    scores: one per channel, in a shape that broadcasts to the weight. alive: earlier masks.
    """
    counts = [scores[weight.name].numel() for weight in weights]
    ranked = torch.cat([_defended(scores[weight.name], None).flatten() for weight in weights])
    sizes = torch.cat([torch.full((c,), w.tensor.numel() // c) for w, c in zip(weights, counts, strict=True)])
    order = ranked.argsort(stable=True)
    removed = sizes[order].cumsum(0)
    wanted = sparsity * sum(w.tensor.numel() for w in weights)
    count = int(((removed - sizes[order] / 2) <= wanted).sum())
    kept = torch.ones(len(ranked), dtype=torch.bool)
    kept[order[:count]] = False
    kept |= torch.isinf(ranked)
    masks = {}
    for weight, part in zip(weights, torch.split(kept, counts), strict=True):
        mask = part.reshape(scores[weight.name].shape).expand(weight.tensor.shape).clone()
        masks[weight.name] = mask & alive[weight.name] if alive and weight.name in alive else mask
    return masks


def keep_n_of_m(scores: Tensor, axis: int, n: int, m: int) -> Tensor:
    """True for the n largest of every m scores that follow one another along `axis`, whose length is a multiple of m;
    ties stay in order of position."""
    moved = scores.movedim(axis, -1)
    groups = moved.reshape(*moved.shape[:-1], -1, m)
    order = groups.argsort(dim=-1, descending=True, stable=True)
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter(-1, order[..., :n], True)
    return kept.reshape(moved.shape).movedim(-1, axis)


def _share(weight: LayerWeight, sparsity: float, layer_sparsity: Mapping[str, float]) -> float | None:
    return next((layer_sparsity[name] for name in weight.layers if name in layer_sparsity), None)


def _defended(scores: Tensor, alive: Tensor | None) -> Tensor:
    """Scores in which removed weights come last and the best one of the tensor cannot be reached."""
    result = scores.detach().double()
    if alive is not None:
        result = result.masked_fill(~alive, -1)
    result.view(-1)[result.argmax()] = torch.inf
    return result


def _without_least(scores: Tensor, share: float) -> Tensor:
    """(rows, n) False for the least round(share * n) of every row, as far as they are not infinite."""
    rows, length = scores.shape
    count = int(share * length + 0.5)
    if not count:
        return torch.ones_like(scores, dtype=torch.bool)
    if rows == 1:
        # A selection instead of a sort: linear time for rankings over whole models.
        least = scores.kthvalue(count, dim=1, keepdim=True).values
        below = scores < least
        ties = scores == least
        spare = count - below.sum(1, keepdim=True)
        removed = below | (ties & (ties.cumsum(1) <= spare))
    else:
        order = scores.argsort(dim=1, stable=True)
        removed = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order[:, :count], True)
    return ~removed | torch.isinf(scores)


def _lamp(size: Tensor) -> Tensor:
    squares = size.double().square().flatten()
    rising, order = squares.sort(stable=True)
    not_smaller = rising.flip(0).cumsum(0).flip(0).clamp_min(1e-300)
    result = torch.empty_like(squares)
    result[order] = rising / not_smaller
    return result.reshape(size.shape).float()

"""Averages of models of one architecture: of all of them, or of those that help (soups).

Wortsman et al. 2022, arXiv:2203.05482.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from compressors.errors import InvalidRecipe
from compressors.state import state_of

Score = Callable[[fx.GraphModule], float]  # higher is better
Prepare = Callable[[fx.GraphModule], None]  # in place


@dataclass(frozen=True)
class Soup:
    """model: the average. members: names that are in it, the best first. scores: of every model alone, by name;
    score: of the average, never below the best of them."""

    model: fx.GraphModule
    members: tuple[str, ...]
    scores: Mapping[str, float]
    score: float


def check_same_architecture(models: Mapping[str, fx.GraphModule]) -> None:
    """Raises InvalidRecipe, naming the model and the difference, unless all compute the same with tensors of the same
    shapes under the same names."""
    names = list(models)
    first = models[names[0]]
    for name in names[1:]:
        difference = _difference(first, models[name])
        if difference:
            raise InvalidRecipe(
                f"model {name!r} cannot be averaged with {names[0]!r}: {difference}; "
                "only copies of one architecture can be averaged"
            )


def _difference(first: fx.GraphModule, second: fx.GraphModule) -> str | None:
    ours = {name: tuple(tensor.shape) for name, tensor in first.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in second.state_dict().items()}
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            return f"{name} is only in {'the first' if name in ours else 'the second'}"
        if ours[name] != theirs[name]:
            return f"{name} has shape {theirs[name]} instead of {ours[name]}"
    if first.code != second.code:
        return "it computes something else with the same weights"
    for name, mask in state_of(first).masks.items():
        if bool((second.get_parameter(name).detach() * ~mask.bool()).any()):
            return f"{name} has weights where they have been pruned"
    return None


@torch.no_grad()
def average(models: Sequence[fx.GraphModule]) -> fx.GraphModule:
    """A copy of the first model with the mean of all weights and float buffers; other buffers are the first's."""
    mean: fx.GraphModule = copy.deepcopy(models[0])
    states = [model.state_dict() for model in models]
    for name, tensor in mean.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(_mean([state[name] for state in states]))
    return mean


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.double() for tensor in tensors]).mean(0)


def greedy_soup(models: Mapping[str, fx.GraphModule], score: Score, *, prepare: Prepare | None = None) -> Soup:
    """Averages the best model with each next best one as long as the score does not fall; others are left out.

    models: by name, of one architecture, untouched. score: on rows that none was tuned on; called twice a model.
    prepare: what a fresh average needs before it is scored (statistics of batch norms).
    Raises InvalidRecipe for models of different architectures. Algorithm 1 of the source above.
    """
    if not models:
        raise InvalidRecipe("no models to average; give at least one")
    check_same_architecture(models)
    scores = {name: score(model) for name, model in models.items()}
    ranked = sorted(models, key=lambda name: -scores[name])
    members, best, best_score = [ranked[0]], copy.deepcopy(models[ranked[0]]), scores[ranked[0]]
    for name in ranked[1:]:
        candidate = average([models[member] for member in (*members, name)])
        if prepare is not None:
            prepare(candidate)
        candidate_score = score(candidate)
        if candidate_score >= best_score:
            members.append(name)
            best, best_score = candidate, candidate_score
    return Soup(best, tuple(members), scores, best_score)

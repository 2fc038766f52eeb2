"""Further models that a recipe refers to by name, and whether one can take the place of another."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from compressors.errors import InvalidRecipe


def named_model(field: str, name: str, models: Mapping[str, fx.GraphModule]) -> fx.GraphModule:
    """The model given under `name`. Raises InvalidRecipe, which lists those that are given. field: for messages."""
    if name not in models:
        near = difflib.get_close_matches(name, models, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        given = f"given are {sorted(models)}" if models else "none are given; add it to the further models"
        raise InvalidRecipe(f"{field}={name!r}: no further model has this name; {hint}{given}")
    return models[name]


def in_eval_mode(model: fx.GraphModule) -> fx.GraphModule:
    """The model itself, or a copy in eval mode if any part of it is in training mode."""
    if any(module.training for module in model.modules()):
        copied: fx.GraphModule = copy.deepcopy(model)
        return copied.eval()
    return model


def check_same_interface(
    what: str, candidate: fx.GraphModule, model: fx.GraphModule, inputs: tuple[Tensor, ...]
) -> None:
    """Raises InvalidRecipe unless `candidate` takes what `model` takes and answers in the same shapes and types.

    Both run once on `inputs`, in eval mode. what: names the candidate in messages.
    """
    theirs, ours = _placeholders(candidate), _placeholders(model)
    if len(theirs) != len(ours):
        raise InvalidRecipe(f"{what} takes {len(theirs)} inputs {theirs}, the original {len(ours)} {ours}")
    expected = _described(model, inputs)
    given = [_shape_and_type(tensor) for tensor in inputs]
    try:
        found = _described(candidate, inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InvalidRecipe(
            f"{what} does not take the original's inputs {dict(zip(ours, given, strict=True))}: {reason}"
        ) from error
    if len(found) != len(expected):
        raise InvalidRecipe(f"{what} gives {len(found)} outputs, the original {len(expected)}")
    for index, (mine, wanted) in enumerate(zip(found, expected, strict=True)):
        if mine != wanted:
            raise InvalidRecipe(f"{what} gives output {index} as {mine}, the original as {wanted}")


def _placeholders(model: fx.GraphModule) -> list[str]:
    return [node.name for node in model.graph.find_nodes(op="placeholder")]


def _described(model: fx.GraphModule, inputs: tuple[Tensor, ...]) -> list[str]:
    """Shape and type of every output."""
    with torch.no_grad():
        return [_shape_and_type(leaf) for leaf in pytree.tree_leaves(in_eval_mode(model)(*inputs))]


def _shape_and_type(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__

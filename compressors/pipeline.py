"""Applies a recipe's steps one after another."""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import fx

from compressors import techniques
from compressors.errors import CompressorError, InvalidRecipe
from compressors.recipe import Phase, Recipe
from compressors.registry import Context, apply

TECHNIQUES = techniques.MODULES  # importing them registers them


def run_recipe(model: fx.GraphModule, recipe: Recipe, context: Context) -> fx.GraphModule:
    """A new model, in eval mode, with every step applied in order; `model` is untouched.

    The same recipe, model, data and seed give the same bytes on a CPU (with the same number of threads).
    Raises what a step raises, with the step's place in front.
    """
    current: fx.GraphModule = copy.deepcopy(model)
    at_hand = context
    for position, step in enumerate(recipe.steps):
        try:
            current = apply(current, step, at_hand)
        except InvalidRecipe as error:
            raise InvalidRecipe(f"step {position + 1} ({step.technique}): {error}") from error
        except CompressorError as error:
            error.args = (f"step {position + 1} ({step.technique}): {error}", *error.args[1:])
            raise
        if step.phase in (Phase.STUDENT, Phase.SHAPE, Phase.FOLDING):
            at_hand = replace(at_hand, graph=None)
    current.eval()
    return current

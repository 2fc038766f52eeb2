"""A recipe seen as a template: everything but the channel counts, which the solver fills in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from compressors.recipe import Recipe, StructuredPruning


def filled(template: Recipe, keep: Mapping[str, int], sizes: Mapping[str, int]) -> Recipe:
    """The template with these channel counts in its first structured pruning; groups that lose nothing are left out."""
    pruning = template.pruning
    if pruning is None:
        return template
    counts = {name: count for name, count in keep.items() if count < sizes[name]}
    return template.replaced(StructuredPruning, replace(pruning, keep=counts))


def kept(recipe: Recipe, sizes: Mapping[str, int]) -> dict[str, int]:
    """Channels of every group under a recipe."""
    return {**sizes, **(recipe.pruning.keep if recipe.pruning is not None else {})}


def template_key(recipe: Recipe) -> str:
    """Equal for recipes that differ in channel counts only, as far as cost goes."""
    return Recipe(tuple(s for s in recipe.steps if not isinstance(s, StructuredPruning))).cost_key


def stores_padded_channels(recipe: Recipe) -> bool:
    """Whether the file holds channels padded to the steps of integer kernels (`compressors.channel_alignment`)."""
    return recipe.quantization is not None

"""Fields that configurations of sparsity share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from compressors.errors import InvalidRecipe

WeightScore = Literal["l1", "l2", "lamp", "wanda", "random"]


def check_sparsity(field: str, sparsity: float) -> None:
    """Raises InvalidRecipe unless 0 <= sparsity < 1."""
    if not 0 <= sparsity < 1:
        remedy = f"use {sparsity / 100:g}" if 1 < sparsity < 100 else "use 0.5"
        raise InvalidRecipe(f"{field}={sparsity}: must lie in 0..1, without 1; {remedy}")


def check_layer_sparsity(technique: str, layer_sparsity: Mapping[str, float], layers: Sequence[str]) -> None:
    """Raises InvalidRecipe for a share out of range, and for a layer that `layers` leaves out."""
    for layer, sparsity in layer_sparsity.items():
        check_sparsity(f"{technique}.layer_sparsity[{layer!r}]", sparsity)
        if layers and layer not in layers:
            raise InvalidRecipe(f"{technique}.layer_sparsity[{layer!r}]: the layer is not among `layers`; add it there")

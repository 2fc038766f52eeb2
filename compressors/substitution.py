"""Runs a model with other tensors in the places of its parameters: products with gates, look-ups in codebooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def substituted(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, parameter `name` reads as tensors[name], which may carry a gradient; the model's own are put back after.

    Unlike `torch.nn.utils.parametrize`, names, ties and the order of parameters stay as they are, and recurrent layers
    and raw parameters of a graph take part.
    """
    kept: list[tuple[nn.Module, str, Tensor | None]] = []
    try:
        for name, tensor in tensors.items():
            path, _, leaf = name.rpartition(".")
            owner = model.get_submodule(path)
            kept.append((owner, leaf, owner._parameters[leaf]))
            owner._parameters[leaf] = tensor  # type: ignore[assignment]
        yield
    finally:
        for owner, leaf, parameter in kept:
            owner._parameters[leaf] = parameter  # type: ignore[assignment]

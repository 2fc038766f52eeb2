"""What a family is: one small network of a well-known design, its inputs and what it is for."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

# scores: (batch, classes or targets). sequence: (batch, length, classes). map: (batch, classes, height, width).
# scalar: (batch,), one number per row.
OutputKind = Literal["scores", "sequence", "map", "scalar"]
# Rows that batch norms take their statistics from.
_STATISTICS_ROWS = 32

Sample = Callable[[int, torch.Generator], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Family:
    """name: key in the registry. factory: makes the network. sample: (batch, generator) to inputs of that many rows.

    task: what the network is for, as jobs name it. output: shape of its result.
    """

    name: str
    factory: Callable[[], nn.Module]
    sample: Sample
    task: str = "classification"
    output: OutputKind = "scores"

    def build(self, seed: int = 0) -> nn.Module:
        """In evaluation mode; the same weights for the same seed.

        Norms get random gains and shifts, batch norms also statistics near those of their input, so that the result
        depends on the input as in a trained network, and a mistake in folding or slicing norms shows.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(self.name.encode()) + seed)
            model = self.factory().eval()
            _spread_norms(model)
            _settle_statistics(model, self.inputs(_STATISTICS_ROWS, seed=1))
        return model

    def inputs(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """One tensor per input, axis 0 of length `batch`; the same numbers for the same seed."""
        return self.sample(batch, torch.Generator().manual_seed(seed))


def _spread_norms(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            if isinstance(bias := getattr(module, "bias", None), Tensor):
                nn.init.uniform_(bias, -0.5, 0.5)


def _settle_statistics(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Running statistics of batch norms: those of `inputs`, each off by some ten percent."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(*inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        mean += variance.sqrt() * torch.empty_like(mean).uniform_(-0.2, 0.2)
        variance *= torch.empty_like(variance).uniform_(0.8, 1.2)


def images(channels: int, size: int) -> Sample:
    """Smooth random pictures with a little noise: floats (batch, channels, size, size) in [0, 1]."""

    def sample(batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        coarse = torch.rand(batch, channels, 4, 4, generator=generator)
        noise = torch.randn(batch, channels, size, size, generator=generator)
        return ((functional.interpolate(coarse, (size, size), mode="bicubic") + 0.05 * noise).clamp(0, 1),)

    return sample


def floats(*shape: int) -> Sample:
    """Standard normal floats (batch, *shape)."""
    return lambda batch, generator: (torch.randn(batch, *shape, generator=generator),)


def tokens(vocabulary: int, length: int, lowest: int = 0) -> Sample:
    """Ids (batch, length), int64, lowest <= id < vocabulary."""
    return lambda batch, generator: (torch.randint(lowest, vocabulary, (batch, length), generator=generator),)


def lengths_mask(batch: int, length: int, generator: torch.Generator) -> Tensor:
    """(batch, length), int64: ones for the first tokens of each row, at least two, zeros for the padding behind."""
    lengths = torch.randint(2, length + 1, (batch, 1), generator=generator)
    return (torch.arange(length) < lengths).to(torch.int64)


def joined(*samples: Sample) -> Sample:
    """Inputs of all `samples`, one after the other."""
    return lambda batch, generator: tuple(tensor for sample in samples for tensor in sample(batch, generator))

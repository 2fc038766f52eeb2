"""Parameters and multiply-accumulates of a model as arithmetic on kept channels, so that a solver needs no model.

`layer_shapes.read_costs` builds these from a model; this module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from compressors.errors import InvalidRecipe

Keep = Mapping[str, int]

GRID = " * "
RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One layer with weights, or one weight of a layer that has several (a recurrent one).

    kind: class of the layer; 'Parameter' for a raw one. kernel: weight values per pair of input and output channel
    (per output channel for depthwise layers and norms; 0 without weights). positions: places per sample at which the
    kernel is applied, summed over calls; 0 for norms and embeddings, whose MACs are not counted. position_groups: the
    places that a linear layer along another dimension finds per unit kept of a group.
    out_fixed, in_fixed: channels that always stay. out_groups, in_groups: channels per unit kept of a group; for a
    grid of two groups or more (heads and places in each head), the key is their names with ' * ' between them and the
    value is per pair of units. The inputs are those that each output reads: of one group in a grouped convolution.
    depthwise: every output reads one input; norms and raw vectors too. shares_weight: the weight is another layer's,
    counted there.
    """

    name: str
    kind: str
    kernel: int
    positions: int
    position_groups: Mapping[str, int] = field(default_factory=dict)
    out_fixed: int
    out_groups: Mapping[str, int] = field(default_factory=dict)
    in_fixed: int = 1
    in_groups: Mapping[str, int] = field(default_factory=dict)
    depthwise: bool = False
    bias: bool = False
    shares_weight: bool = False

    @property
    def layer(self) -> str:
        """Name of the module that holds the weight; of a raw parameter its own."""
        return self.name.rpartition(".")[0] if self.kind in RECURRENT else self.name

    @cached_property
    def groups(self) -> frozenset[str]:
        """Names of the groups that the layer's size depends on."""
        return frozenset(
            name for key in (*self.out_groups, *self.in_groups, *self.position_groups) for name in key.split(GRID)
        )

    def out_channels(self, keep: Keep) -> int:
        """keep: units kept of every group of the model."""
        return self.out_fixed + _count(self.out_groups, keep)

    def in_channels(self, keep: Keep) -> int:
        return self.in_fixed + _count(self.in_groups, keep)

    def parameters(self, keep: Keep) -> int:
        """Trained values of the layer."""
        weight = 0 if self.shares_weight else self._weight(keep)
        return weight + (self.out_channels(keep) if self.bias else 0)

    def macs(self, keep: Keep) -> int:
        """Multiply-accumulates per sample."""
        return (self.positions + _count(self.position_groups, keep)) * self._weight(keep)

    def _weight(self, keep: Keep) -> int:
        return self.kernel * (1 if self.depthwise else self.in_channels(keep)) * self.out_channels(keep)


def _count(groups: Mapping[str, int], keep: Keep) -> int:
    return sum(count * math.prod(keep[name] for name in key.split(GRID)) for key, count in groups.items())


@dataclass(frozen=True)
class LayerCosts:
    """All layers of a model. group_sizes: units per group before pruning; a group left out of `keep` keeps all."""

    layers: tuple[LayerShape, ...]
    group_sizes: Mapping[str, int]

    def complete(self, keep: Keep) -> dict[str, int]:
        """`keep` with every group named. Raises InvalidRecipe for an unknown group."""
        unknown = sorted(set(keep) - set(self.group_sizes))
        if unknown:
            raise InvalidRecipe(f"keep[{unknown[0]!r}]: no such group; this model has {sorted(self.group_sizes)}")
        return {**self.group_sizes, **keep}

    def parameters(self, keep: Keep) -> int:
        """Trained values of the whole model."""
        whole = self.complete(keep)
        return sum(layer.parameters(whole) for layer in self.layers)

    def macs(self, keep: Keep) -> int:
        """Multiply-accumulates per sample of the whole model, as `ModelDescription.layers` counts them."""
        whole = self.complete(keep)
        return sum(layer.macs(whole) for layer in self.layers)

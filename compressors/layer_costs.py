"""Parameters and multiply-accumulates of a model as arithmetic on kept channels, so that a solver needs no model.

`layer_shapes.read_costs` builds these from a model; this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compressors.errors import InvalidRecipe

Keep = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One layer with weights.

    kind: class of the layer; 'Parameter' for a raw one. kernel: weight values per pair of input and output channel
    (per output channel for depthwise layers and norms; 0 without weights). positions: places per sample at which the
    kernel is applied, summed over calls; 0 for norms and embeddings, whose MACs are not counted.
    out_fixed, in_fixed: channels that always stay. out_groups, in_groups: channels per unit kept of a group.
    depthwise: every output reads one input; norms and raw parameters too. groups: of a grouped convolution.
    shares_weight: the weight is another layer's, counted there.
    """

    name: str
    kind: str
    kernel: int
    positions: int
    out_fixed: int
    out_groups: Mapping[str, int] = field(default_factory=dict)
    in_fixed: int = 1
    in_groups: Mapping[str, int] = field(default_factory=dict)
    depthwise: bool = False
    groups: int = 1
    bias: bool = False
    shares_weight: bool = False

    def out_channels(self, keep: Keep) -> int:
        """keep: units kept of every group of the model."""
        return self.out_fixed + sum(per_unit * keep[group] for group, per_unit in self.out_groups.items())

    def in_channels(self, keep: Keep) -> int:
        return self.in_fixed + sum(per_unit * keep[group] for group, per_unit in self.in_groups.items())

    def parameters(self, keep: Keep) -> int:
        """Trained values of the layer."""
        weight = 0 if self.shares_weight else self._weight(keep)
        return weight + (self.out_channels(keep) if self.bias else 0)

    def macs(self, keep: Keep) -> int:
        """Multiply-accumulates per sample."""
        return self.positions * self._weight(keep)

    def _weight(self, keep: Keep) -> int:
        per_output = 1 if self.depthwise else self.in_channels(keep) // self.groups
        return self.kernel * per_output * self.out_channels(keep)


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

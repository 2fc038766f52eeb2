"""What one cheap look at the model tells: baseline, groups of channels, and the cost of every layer. Plain data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from compressors.layer_costs import LayerShape
from search.records import Baseline


@dataclass(frozen=True, kw_only=True)
class Group:
    """Channels that may be removed one by one. position: 0 (input) .. 1 (output). layers: how many layers it shapes."""

    name: str
    size: int
    layers: int
    position: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """left_out: groups that verification refused, with the reason. samples_per_second: tuning speed of one process.

    parity: largest absolute difference between the program and its export. fingerprint: the machine and runtime that
    the latencies belong to. blocks: residual blocks that may go, with the layers that go along. integer_layers: layers
    whose weights integer kernels would multiply with, so that each may have fewer bits.
    """

    baseline: Baseline
    baseline_p90_ms: float
    groups: tuple[Group, ...]
    shapes: tuple[LayerShape, ...]
    left_out: Mapping[str, str]
    samples_per_second: float
    parity: float
    fingerprint: Mapping[str, Any]
    rows: Mapping[str, int]
    blocks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    integer_layers: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """Channels of each group in the uncompressed model."""
        return {group.name: group.size for group in self.groups}

    def layers_of_blocks(self, dropped: Collection[str]) -> frozenset[str]:
        """Layers that go when these blocks go."""
        return frozenset(layer for block in dropped for layer in self.blocks[block])

    def groups_within(self, layers: Collection[str]) -> frozenset[str]:
        """Groups of channels that shape no layer outside of `layers`."""
        outside = {g for s in self.shapes if s.layer not in layers for g in s.groups}
        return frozenset(self.sizes) - outside if layers else frozenset()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Profile:
        d = dict(document)
        d["baseline"] = Baseline(**d["baseline"])
        d["groups"] = tuple(Group(**g) for g in d["groups"])
        d["shapes"] = tuple(LayerShape(**s) for s in d["shapes"])
        d["blocks"] = {name: tuple(layers) for name, layers in d["blocks"].items()}
        d["integer_layers"] = tuple(d["integer_layers"])
        return cls(**d)

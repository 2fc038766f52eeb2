"""What one cheap look at the model tells: baseline, groups of channels, and the cost of every layer. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
    the latencies belong to.
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

    @property
    def sizes(self) -> dict[str, int]:
        """Channels of each group in the uncompressed model."""
        return {group.name: group.size for group in self.groups}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Profile:
        d = dict(document)
        d["baseline"] = Baseline(**d["baseline"])
        d["groups"] = tuple(Group(**g) for g in d["groups"])
        d["shapes"] = tuple(LayerShape(**s) for s in d["shapes"])
        return cls(**d)

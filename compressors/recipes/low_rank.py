"""Configuration of low-rank factorisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step

Rank = int | tuple[int, int]
LayerKind = Literal["linear", "convolution", "embedding", "recurrent"]
Kernels = Literal["tucker", "svd"]

DEFAULT_ENERGY = 0.9


@step
@dataclass(frozen=True, kw_only=True)
class LowRank(Step):
    """Replaces a layer by two or three thin ones whose product comes near its weight.

    Linear layers and 1x1 convolutions: W (out, in) ~ A (out, r) B (r, in), the truncated singular value decomposition
    (Eckart & Young 1936). k x k convolutions, kernels="tucker": a 1x1 convolution to s channels, a k x k one from s to
    r, a 1x1 one to all outputs (Tucker-2; Kim et al. 2016, arXiv:1511.06530); a 1x1 one that would keep every channel
    is left out. kernels="svd": a k x k convolution to r channels and a 1x1 one (Zhang et al. 2015, arXiv:1505.06798).
    Transposed convolutions alike. embedding: a narrow table and a linear layer (Lan et al. 2020, arXiv:1909.11942,
    section 3.1). recurrent: a linear layer in front of the first layer's input weights; hidden weights stay, no runtime
    has a recurrent layer that takes them in two parts.

    How the rank is chosen; one of energy and ratio, ranks for single layers:
    energy: smallest rank that keeps this share of the weight's squared norm, 0 < energy < 1. Without anything else 0.9.
    ratio: largest rank whose factors hold at most this share of the weight's values, 0 < ratio < 1. The same in every
        layer, where energy takes more from layers that can spare it: better at the same size unless all are alike.
    ranks: per layer, r; for a k x k convolution as "tucker" also (r, s), outputs first. Alone: only these layers.

    layers: layers to factorise, of any kind; empty: all of `kinds` that get smaller. A layer gets smaller if its
    parameters fall and its multiply-accumulates do not grow. Embeddings are not among the kinds by default: there the
    parameters alone decide, and a looked-up row costs multiplications that it did not cost before.
    data_aware: minimises the error of the layer's outputs on calibration inputs instead of that of its weight, at the
    same rank: exact reduced-rank regression, which for a single product equals the whitened SVD of SVD-LLM (Wang et al.
    2024, arXiv:2403.07378) and, with its correction of the bias, the linear case of Zhang et al. 2015, section 3.1.

    Left out: grouped and depthwise convolutions (their blocks are thin already) and layers that share their weight.
    With energy, the ranks follow from the weights at hand: a step after a tuning has other ranks than its draft.
    """

    technique: ClassVar[str] = "low_rank"
    summary: ClassVar[str] = "splits layers into thinner ones: SVD and Tucker-2"
    phase: ClassVar[Phase] = Phase.SHAPE
    repeatable: ClassVar[bool] = True
    value_fields: ClassVar[frozenset[str]] = frozenset({"data_aware"})

    energy: float | None = None
    ratio: float | None = None
    ranks: Mapping[str, Rank] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    kinds: tuple[LayerKind, ...] = ("linear", "convolution", "recurrent")
    kernels: Kernels = "tucker"
    data_aware: bool = False

    def __post_init__(self) -> None:
        if self.energy is not None and self.ratio is not None:
            raise InvalidRecipe(f"low_rank.energy={self.energy} and ratio={self.ratio}: give one of the two")
        for name in ("energy", "ratio"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise InvalidRecipe(f"low_rank.{name}={value}: must lie between 0 and 1, without both")
        for layer, rank in self.ranks.items():
            if min(rank if isinstance(rank, tuple) else (rank,)) < 1:
                raise InvalidRecipe(f"low_rank.ranks[{layer!r}]={rank}: at least 1 must remain")
        if not self.kinds:
            raise InvalidRecipe("low_rank.kinds=(): names no kind of layer; leave it out for all that multiply")
        if self.layers and self.ranks and self.energy is None and self.ratio is None:
            missing = sorted(set(self.layers) - set(self.ranks))
            if missing:
                raise InvalidRecipe(f"low_rank.layers: {missing[0]!r} has no rank in ranks; add it, or energy or ratio")
        if self.energy is None and self.ratio is None and not self.ranks:
            object.__setattr__(self, "energy", DEFAULT_ENERGY)
        object.__setattr__(self, "ranks", dict(sorted(self.ranks.items())))
        object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))

    def uses_calibration(self) -> bool:
        return self.data_aware

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return tuple(cls(energy=energy, data_aware=True) for energy in (0.95, 0.9, 0.8))

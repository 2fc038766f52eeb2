"""Configuration of weight sharing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from compressors.errors import InvalidRecipe
from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class WeightSharing(Step):
    """Each layer's weights take at most 2^bits shared values, found by k-means (Han et al. 2016, arXiv:1510.00149,
    section 3).

    The file holds an index per weight and a table of float16 values per layer; the runtime looks the values up when it
    loads the file, so that the time stays that of the float32 model. Zeros of pruned weights stay zero and are left out
    of the indices. `bantam pack` adds the Huffman codes of Deep Compression.

    bits: of an index; layer_bits: other widths by layer. One table per layer: at 4 bits and more it does as
        well as evenly spaced integers with a scale per channel, at 3 and fewer those do better; integer kernels cannot
        multiply with shared values.
    initialization: optimal: dynamic programming over intervals (Wang & Song 2011, Ckmeans.1d.dp), exact for small
        layers; linear: evenly over the range (best of the three in section 3.2 of the paper); kmeans++.
    weighting: none: least squared error of the weights; activations: each weight counts by the mean square of the input
        that it multiplies, the diagonal of the layer's Hessian (Choi et al. 2017, arXiv:1612.01543), over calibration
        data; linear layers and convolutions.
    layers: names; empty means all convolutions, linear layers, embeddings, recurrent layers and raw weights. A layer
        that would not get smaller keeps its weights.
    """

    technique: ClassVar[str] = "weight_sharing"
    summary: ClassVar[str] = "weights share 4 to 256 values per layer; smaller files, same time"
    phase: ClassVar[Phase] = Phase.ENCODING
    value_fields: ClassVar[frozenset[str]] = frozenset({"initialization", "weighting"})

    bits: Literal[2, 3, 4, 5, 6, 7, 8] = 4
    layer_bits: Mapping[str, int] = field(default_factory=dict)
    initialization: Literal["optimal", "linear", "kmeans++"] = "optimal"
    weighting: Literal["none", "activations"] = "none"
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, bits in self.layer_bits.items():
            if not 2 <= bits <= 8:
                nearest = min(max(bits, 2), 8)
                raise InvalidRecipe(f"weight_sharing.layer_bits[{name!r}]={bits}: must lie in 2..8; use {nearest}")
            if self.layers and name not in self.layers:
                raise InvalidRecipe(
                    f"weight_sharing.layer_bits[{name!r}]: the layer is not among `layers`; add it there"
                )
        object.__setattr__(self, "layers", tuple(sorted(self.layers)))
        object.__setattr__(self, "layer_bits", dict(sorted(self.layer_bits.items())))

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return cls(bits=6), cls(bits=5), cls(bits=4), cls(bits=3)

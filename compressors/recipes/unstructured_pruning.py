"""Configuration of unstructured pruning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from compressors.errors import InvalidRecipe
from compressors.recipes.sparsity_fields import WeightScore, check_layer_sparsity, check_sparsity
from compressors.recipes.step import Phase, Step, step


@step
@dataclass(frozen=True, kw_only=True)
class UnstructuredPruning(Step):
    """Sets single weights to zero; later tuning keeps them there.

    The file stores the others and a bit per weight, or gaps where few are left: at 50 % zeros it has 53 % of the bytes,
    at 90 % 13 %. Memory and time at run time stay those of the dense model, for no kernel of ONNX Runtime skips zeros.

    sparsity: share of weights that become zero, exact to half a weight; 0.5 if threshold is left out as well. Zeros of
        earlier steps count. layer_sparsity: other shares by layer; these leave a global ranking. 0 spares a layer.
    scope: what weights compete with. global: all weights of the model; layer: those of their layer; row: those of their
        output channel (the comparison group of Wanda). At least one weight of a tensor remains.
    importance: how weights are ranked.
        l1: |w| (Han et al. 2015, arXiv:1506.02626); best of all on a ResNet-20 pruned once, by a global ranking, to
            half.
        l2: |w| over the root mean square of its layer. Inside a layer the ranking is that of l1; in a global one layers
            of different scale become comparable.
        lamp: w^2 over the sum of all squares in the layer that are not smaller (Lee et al. 2021, arXiv:2010.07611,
            eq. 2), made for global ranking.
        wanda: |w| times the norm of the input that it multiplies, over calibration data (Sun et al. 2023,
            arXiv:2306.11695, eq. 1), over its layer's root mean square in a global ranking. Linear layers and
            convolutions; other layers fall back to l2.
        random: control.
    threshold: instead of a sparsity, what is smaller in absolute value becomes zero; relative: in units of the layer's
        root mean square.
    layers: names; empty means all convolutions, linear layers, embeddings, recurrent layers and raw weights. Biases and
        norms are never pruned.
    """

    technique: ClassVar[str] = "unstructured_pruning"
    summary: ClassVar[str] = "single weights become zero; smaller files, same time"
    phase: ClassVar[Phase] = Phase.SPARSITY
    repeatable: ClassVar[bool] = True

    sparsity: float | None = None
    layer_sparsity: Mapping[str, float] = field(default_factory=dict)
    scope: Literal["global", "layer", "row"] = "global"
    importance: WeightScore = "l1"
    threshold: float | None = None
    threshold_kind: Literal["absolute", "relative"] = "absolute"
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        name = self.technique
        if self.threshold is None:
            if self.threshold_kind != "absolute":
                raise InvalidRecipe(f"{name}.threshold_kind={self.threshold_kind!r}: threshold is missing; set it")
            object.__setattr__(self, "sparsity", 0.5 if self.sparsity is None else self.sparsity)
        else:
            for other, given in (("sparsity", self.sparsity is not None), ("layer_sparsity", self.layer_sparsity)):
                if given:
                    raise InvalidRecipe(
                        f"{name}.threshold={self.threshold} and {name}.{other}: either says how many weights go; "
                        "leave out one"
                    )
            if not self.threshold > 0:
                raise InvalidRecipe(f"{name}.threshold={self.threshold}: must be greater than 0")
        if self.sparsity is not None:
            check_sparsity(f"{name}.sparsity", self.sparsity)
        check_layer_sparsity(name, self.layer_sparsity, self.layers)
        object.__setattr__(self, "layers", tuple(sorted(self.layers)))
        object.__setattr__(self, "layer_sparsity", dict(sorted(self.layer_sparsity.items())))

    @classmethod
    def levels(cls) -> tuple[Self, ...]:
        return tuple(cls(sparsity=share) for share in (0.3, 0.5, 0.7, 0.8, 0.9))

"""Emitters of rearrangements inside a tensor: reversed, rolled, shuffled between channels and space, resampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from compressors.errors import UnsupportedModel
from compressors.onnx_emission import Emission, Value, emits
from compressors.onnx_tensors import resize

aten: Any = torch.ops.aten


@emits(aten.flip.default)
def flip(emission: Emission, x: Value, dims: Sequence[int]) -> str:
    count = len(dims)
    starts, ends = emission.ints([-1] * count), emission.ints([-(2**63) + 1] * count)
    return emission.add("Slice", x, starts, ends, emission.ints(dims), emission.ints([-1] * count))


@emits(aten.roll.default)
def roll(emission: Emission, x: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> str:
    """As shifted windows need it (Liu et al. 2021): what leaves at one end comes in at the other."""
    if not dims or any(dim % x.rank == 0 for dim in dims):
        raise UnsupportedModel("roll of the batch or of all axes at once is not exported; name other axes")
    name = x.name
    for shift, dim in zip(shifts, dims, strict=True):
        size = x.shape[dim]
        cut = (size - shift) % size
        if cut:
            head, tail = emission.add_many("Split", name, emission.ints([cut, size - cut]), outputs=2, axis=dim)
            name = emission.add("Concat", tail, head, axis=dim)
    return name


@emits(aten.mT.default, aten.adjoint.default)
def transpose_last(emission: Emission, x: Value) -> str:
    order = list(range(x.rank))
    return emission.add("Transpose", x, perm=[*order[:-2], order[-1], order[-2]])


@emits(aten.pixel_shuffle.default)
def pixel_shuffle(emission: Emission, x: Value, upscale_factor: int) -> str:
    """Shi et al. 2016: (N, C r^2, H, W) to (N, C, H r, W r)."""
    return emission.add("DepthToSpace", x, blocksize=upscale_factor, mode="CRD")


@emits(aten.pixel_unshuffle.default)
def pixel_unshuffle(emission: Emission, x: Value, downscale_factor: int) -> str:
    """ONNX's SpaceToDepth puts the place inside a block before the channel, torch behind it."""
    if x.rank != 4:
        raise UnsupportedModel(f"pixel_unshuffle of {x.rank} dimensions is not exported; give it (N, C, H, W)")
    factor = downscale_factor
    _, channels, height, width = x.shape
    blocks = [0, channels, height // factor, factor, width // factor, factor]
    name = emission.add("Transpose", emission.add("Reshape", x, emission.ints(blocks)), perm=[0, 1, 3, 5, 2, 4])
    return emission.add("Reshape", name, emission.ints([0, channels * factor**2, height // factor, width // factor]))


@emits(aten.tensor_split.sections, aten.unsafe_split.Tensor, aten.unsafe_chunk.default)
def split_evenly(emission: Emission, x: Value, sections: int, dim: int = 0) -> tuple[str, ...]:
    lengths = [part.shape[dim] for part in emission.results]
    if len(lengths) == 1:
        return (x.name,)
    return emission.add_many("Split", x, emission.ints(lengths), outputs=len(lengths), axis=dim)


@emits(aten._upsample_nearest_exact2d.vec, aten._upsample_nearest_exact1d.vec)
def upsample_nearest_exact(emission: Emission, x: Value, *args: Any, **kwargs: Any) -> str:
    return resize(
        emission,
        x,
        mode="nearest",
        coordinate_transformation_mode="half_pixel",
        nearest_mode="round_prefer_ceil",
    )


@emits(aten.upsample_bicubic2d.vec)
def upsample_bicubic(emission: Emission, x: Value, size: Any, align_corners: bool, *args: Any) -> str:
    mode = "align_corners" if align_corners else "half_pixel"
    return resize(emission, x, mode="cubic", coordinate_transformation_mode=mode, cubic_coeff_a=-0.75)


@emits(aten.upsample_linear1d.vec)
def upsample_linear(emission: Emission, x: Value, size: Any, align_corners: bool, *args: Any) -> str:
    mode = "align_corners" if align_corners else "half_pixel"
    return resize(emission, x, mode="linear", coordinate_transformation_mode=mode)

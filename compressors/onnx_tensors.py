"""Emitters of what moves, joins, cuts and creates whole tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from compressors.errors import UnsupportedModel
from compressors.onnx_emission import Dimension, Emission, Size, Value, emits
from compressors.onnx_pointwise import operand

aten: Any = torch.ops.aten

_END = 2**63 - 1


@emits(aten.sym_size.int)
def dynamic_size(emission: Emission, x: Value, dim: int) -> Size:
    axis = dim % x.rank
    return Size(emission.add("Shape", x, start=axis, end=axis + 1), x.shape[axis])


@emits(aten.sym_numel.default)
def dynamic_count(emission: Emission, x: Value) -> Size:
    return Size(emission.add("Reshape", emission.add("Size", x), emission.ints([1])), math.prod(x.shape))


@emits(aten.view.default, aten.reshape.default, aten._unsafe_view.default)
def reshape(emission: Emission, x: Value, shape: Sequence[Dimension]) -> str:
    """Zeros keep a dimension, one -1 is computed: a dynamic batch then needs no shape arithmetic in the graph."""
    wanted = list(shape)
    unknown = [i for i, d in enumerate(wanted) if isinstance(d, Size) or d == -1]
    literal: list[Dimension] = []
    for index, dimension in enumerate(wanted):
        if len(unknown) <= 1:
            literal.append(-1 if index in unknown else dimension)
        elif isinstance(dimension, Size) and index == 0 and x.shape[:1] == (dimension.length,):
            literal.append(0)
        else:
            literal.append(dimension)
    return emission.add("Reshape", x, emission.shape(literal))


@emits(aten.flatten.using_ints)
def flatten(emission: Emission, x: Value, start_dim: int = 0, end_dim: int = -1) -> str:
    start, end = start_dim % x.rank, end_dim % x.rank
    if start == end:
        return x.name
    if start == 1 and end == x.rank - 1:
        return emission.add("Flatten", x)
    return emission.add("Reshape", x, emission.ints([*[0] * start, -1, *x.shape[end + 1 :]]))


@emits(aten.unflatten.int)
def unflatten(emission: Emission, x: Value, dim: int, sizes: Sequence[Dimension]) -> str:
    axis = dim % x.rank
    if any(isinstance(size, Size) for size in sizes):
        raise UnsupportedModel("unflatten into dynamic sizes is not exported")
    return emission.add("Reshape", x, emission.ints([*[0] * axis, *sizes, *x.shape[axis + 1 :]]))  # type: ignore[list-item]


@emits(aten.permute.default)
def permute(emission: Emission, x: Value, dims: Sequence[int]) -> str:
    return emission.add("Transpose", x, perm=[d % x.rank for d in dims])


@emits(aten.transpose.int)
def transpose(emission: Emission, x: Value, dim0: int, dim1: int) -> str:
    order = list(range(x.rank))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return emission.add("Transpose", x, perm=order)


@emits(aten.t.default, aten.numpy_T.default)
def reverse_axes(emission: Emission, x: Value) -> str:
    return emission.add("Transpose", x)


@emits(aten.squeeze.default)
def squeeze_all(emission: Emission, x: Value) -> str:
    """Every axis of length 1 but the batch, whose length happens to be what it is in one run."""
    return squeeze(emission, x, range(1, x.rank))


@emits(aten.squeeze.dim, aten.squeeze.dims)
def squeeze(emission: Emission, x: Value, dim: int | Sequence[int]) -> str:
    dims = [dim] if isinstance(dim, int) else list(dim)
    single = [d % x.rank for d in dims if x.shape[d] == 1]
    return emission.add("Squeeze", x, emission.ints(single)) if single else x.name


@emits(aten.unsqueeze.default)
def unsqueeze(emission: Emission, x: Value, dim: int) -> str:
    return emission.add("Unsqueeze", x, emission.ints([dim]))


@emits(aten.expand.default)
def expand(emission: Emission, x: Value, size: Sequence[Dimension], implicit: bool = False) -> str:
    return emission.add("Expand", x, emission.shape([1 if d == -1 else d for d in size]))


@emits(aten.expand_as.default)
def expand_as(emission: Emission, x: Value, other: Value) -> str:
    return emission.add("Expand", x, emission.add("Shape", other))


@emits(aten.repeat.default)
def repeat(emission: Emission, x: Value, repeats: Sequence[Dimension]) -> str:
    extra = len(repeats) - x.rank
    source = emission.add("Unsqueeze", x, emission.ints(range(extra))) if extra else x.name
    return emission.add("Tile", source, emission.shape(repeats))


@emits(aten.cat.default)
def concatenate(emission: Emission, tensors: Sequence[Value], dim: int = 0) -> str:
    # torch skips empty tensors of rank 1 here, a relic that models still use.
    kept = [t for t in tensors if t.shape != (0,)]
    return emission.add("Concat", *kept, axis=dim) if len(kept) > 1 else kept[0].name


@emits(aten.stack.default)
def stack(emission: Emission, tensors: Sequence[Value], dim: int = 0) -> str:
    axis = emission.ints([dim])
    return emission.add("Concat", *[emission.add("Unsqueeze", t, axis) for t in tensors], axis=dim)


@emits(aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default, aten.split.sizes)
def split(emission: Emission, x: Value, sizes: int | Sequence[int], dim: int = 0) -> tuple[str, ...]:
    lengths = [part.shape[dim] for part in emission.results]
    if len(lengths) == 1:
        return (x.name,)
    return emission.add_many("Split", x, emission.ints(lengths), outputs=len(lengths), axis=dim)


@emits(aten.unbind.int)
def unbind(emission: Emission, x: Value, dim: int = 0) -> tuple[str, ...]:
    count = len(emission.results)
    axis = emission.ints([dim])
    if count == 1:
        return (emission.add("Squeeze", x, axis),)
    parts = emission.add_many("Split", x, emission.ints([1] * count), outputs=count, axis=dim)
    return tuple(emission.add("Squeeze", part, axis) for part in parts)


@emits(aten.slice.Tensor)
def slice_axis(
    emission: Emission,
    x: Value,
    dim: int = 0,
    start: Dimension | None = None,
    end: Dimension | None = None,
    step: int = 1,
) -> str:
    first: Dimension = 0 if start is None else start
    last: Dimension = _END if end is None else end
    whole = isinstance(last, int) and last >= x.shape[dim] and (last == _END or dim % x.rank != 0)
    if first == 0 and whole and step == 1:
        return x.name
    return emission.add(
        "Slice", x, emission.shape([first]), emission.shape([last]), emission.ints([dim]), emission.ints([step])
    )


@emits(aten.select.int)
def select(emission: Emission, x: Value, dim: int, index: int) -> str:
    return emission.add("Gather", x, emission.constant(np.array(index, dtype=np.int64)), axis=dim)


@emits(aten.index_select.default)
def index_select(emission: Emission, x: Value, dim: int, index: Value) -> str:
    return emission.add("Gather", x, index, axis=dim)


@emits(aten.index.Tensor)
def index(emission: Emission, x: Value, indices: Sequence[Value | None]) -> str:
    """Several tensors, on axes side by side, index the one axis that these make when merged."""
    given = [(axis, tensor) for axis, tensor in enumerate(indices) if tensor is not None]
    if any(tensor.dtype is torch.bool for _, tensor in given):
        raise UnsupportedModel("indexing with masks is not exported, its result has no fixed size; use where")
    first, last = given[0][0], given[-1][0]
    if last - first + 1 != len(given):
        raise UnsupportedModel("indexing axes that are not side by side is not exported; permute them together first")
    if len(given) == 1:
        return emission.add("Gather", x, given[0][1], axis=first)
    merged = emission.add("Reshape", x, emission.ints([*[0] * first, -1, *x.shape[last + 1 :]]))
    return emission.add("Gather", merged, _merged_positions(emission, x, given), axis=first)


def _merged_positions(emission: Emission, x: Value, given: Sequence[tuple[int, Value]]) -> str:
    """Row-major positions in the merged axis; negative indices count from the end of their own axis."""
    constants = [tensor.constant for _, tensor in given]
    sizes = [x.shape[axis] for axis, _ in given]
    if all(constant is not None for constant in constants) and given[0][0] > 0:
        position = torch.zeros((), dtype=torch.int64)
        for constant, size in zip(constants, sizes, strict=True):
            assert constant is not None
            position = position * size + constant.remainder(size)
        return emission.constant(position.numpy())
    name = ""
    for (axis, tensor), size in zip(given, sizes, strict=True):
        # The batch is as long as it happens to be; its indices are taken as they are.
        single = operand(emission, tensor, torch.int64)
        single = single if axis == 0 else emission.add("Mod", single, emission.scalar(size, torch.int64))
        if name:
            single = emission.add("Add", emission.add("Mul", name, emission.scalar(size, torch.int64)), single)
        name = single
    return name


@emits(aten.gather.default)
def gather(emission: Emission, x: Value, dim: int, index: Value, sparse_grad: bool = False) -> str:
    if any(
        have != want for axis, (have, want) in enumerate(zip(x.shape, index.shape, strict=True)) if axis != dim % x.rank
    ):
        raise UnsupportedModel(
            f"gather of {list(index.shape)} from {list(x.shape)}: other axes must be of equal length"
        )
    return emission.add("GatherElements", x, operand(emission, index, torch.int64), axis=dim)


@emits(aten.scatter.src, aten.scatter.value)
def scatter(emission: Emission, x: Value, dim: int, index: Value, source: Value | float) -> str:
    if isinstance(source, Value):
        updates = operand(emission, source, x.dtype)
    else:
        updates = emission.add("Expand", emission.scalar(source, x.dtype), emission.add("Shape", index))
    return emission.add("ScatterElements", x, operand(emission, index, torch.int64), updates, axis=dim)


@emits(aten.repeat_interleave.self_int)
def repeat_interleave(emission: Emission, x: Value, repeats: int, dim: int | None = None, **kwargs: Any) -> str:
    if dim is None or dim % x.rank == 0:
        raise UnsupportedModel(
            "repeat_interleave of the batch or of all axes at once is not exported; name another axis"
        )
    positions = [place for place in range(x.shape[dim]) for _ in range(repeats)]
    return emission.add("Gather", x, emission.ints(positions), axis=dim)


@emits(aten.pad.default, aten.constant_pad_nd.default)
def pad(
    emission: Emission, x: Value, pad: Sequence[int], mode: str | float = "constant", value: float | None = None
) -> str:
    """`pad` counts from the last axis backwards, (begin, end) per axis; constant_pad_nd has its value third."""
    if not isinstance(mode, str):
        value, mode = float(mode), "constant"
    names = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode not in names:
        raise UnsupportedModel(f"pad mode {mode!r}: known are {sorted(names)}")
    begin, end = [0] * x.rank, [0] * x.rank
    for index in range(len(pad) // 2):
        begin[-1 - index], end[-1 - index] = pad[2 * index], pad[2 * index + 1]
    if not any(begin) and not any(end):
        return x.name
    # ONNX fills with zero when no value is given.
    fill = emission.scalar(value, x.dtype) if value else ""
    chosen = names[mode]
    return emission.add("Pad", x, emission.ints([*begin, *end]), fill, mode=chosen if chosen != "constant" else None)


@emits(aten.arange.default, aten.arange.start, aten.arange.start_step)
def arange(emission: Emission, *bounds: Dimension, **kwargs: Any) -> str:
    limits = [0, bounds[0]] if len(bounds) == 1 else list(bounds)
    start, end, step = (*limits, 1) if len(limits) == 2 else limits
    dtype = emission.result.dtype
    return emission.add("Range", *[operand(emission, limit, dtype) for limit in (start, end, step)])


@emits(aten.new_full.default)
def new_full(emission: Emission, x: Value, size: Sequence[Dimension], number: float, **kwargs: Any) -> str:
    return full(emission, size, number)


@emits(aten.full.default)
def full(emission: Emission, size: Sequence[Dimension], number: float, **kwargs: Any) -> str:
    return emission.add("Expand", emission.scalar(number, emission.result.dtype), emission.shape(size))


@emits(aten.ones.default)
def ones(emission: Emission, size: Sequence[Dimension], **kwargs: Any) -> str:
    return full(emission, size, 1)


@emits(aten.zeros.default)
def zeros(emission: Emission, size: Sequence[Dimension], **kwargs: Any) -> str:
    return full(emission, size, 0)


@emits(aten.new_ones.default)
def new_ones(emission: Emission, x: Value, size: Sequence[Dimension], **kwargs: Any) -> str:
    return full(emission, size, 1)


@emits(aten.new_zeros.default)
def new_zeros(emission: Emission, x: Value, size: Sequence[Dimension], **kwargs: Any) -> str:
    return full(emission, size, 0)


@emits(aten.full_like.default)
def full_like(emission: Emission, x: Value, number: float, **kwargs: Any) -> str:
    return emission.add("Expand", emission.scalar(number, emission.result.dtype), emission.add("Shape", x))


@emits(aten.ones_like.default)
def ones_like(emission: Emission, x: Value, **kwargs: Any) -> str:
    return full_like(emission, x, 1)


@emits(aten.zeros_like.default)
def zeros_like(emission: Emission, x: Value, **kwargs: Any) -> str:
    return full_like(emission, x, 0)


@emits(aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default, aten.upsample_nearest1d.vec)
def upsample_nearest(emission: Emission, x: Value, *args: Any, **kwargs: Any) -> str:
    return resize(emission, x, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


@emits(aten.upsample_bilinear2d.vec, aten.upsample_bilinear2d.default)
def upsample_bilinear(emission: Emission, x: Value, size: Any, align_corners: bool, *args: Any) -> str:
    mode = "align_corners" if align_corners else "half_pixel"
    return resize(emission, x, mode="linear", coordinate_transformation_mode=mode)


def resize(emission: Emission, x: Value, **attributes: Any) -> str:
    """The batch is left alone: scales of 1 there, the ratio of sizes elsewhere."""
    ratios = [1.0, 1.0, *(o / i for o, i in zip(emission.result.shape[2:], x.shape[2:], strict=True))]
    return emission.add("Resize", x, "", emission.constant(np.array(ratios, dtype=np.float32)), **attributes)

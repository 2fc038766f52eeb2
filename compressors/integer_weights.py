"""Weights and biases as integer kernels want them: int8 codes that an encoding has fixed, or fresh ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import TensorProto

from compressors.encodings.bits import emit_codes, pack_integers, packed_bytes
from compressors.encodings.encoding import Encoding
from compressors.encodings.integers import IntegerCodes
from compressors.errors import InvalidRecipe, ParityError
from compressors.integer_grids import GridSpec, fit_grid
from compressors.onnx_emission import Array, Emission
from compressors.onnx_graph import GraphView, layer_of

_BIAS_LIMIT = 2.0**30
_LARGEST_CODE = 127
_SMALLEST_SCALE = 1e-12
# Packed codes need a node that unpacks them, about this many bytes; below it they are stored as they are.
_UNPACKING_BYTES = 48


@dataclass(frozen=True)
class LayerWeights:
    """w = (codes - zero_points) * scales. codes: int8 in the graph's layout, each within `bits` signed bits.

    Scales may be negative: kernels multiply with them in float32.
    scales, zero_points: float32 and int8, (channels,) along `axis`, or () for one of the whole tensor.
    """

    codes: Array
    scales: Array
    zero_points: Array
    bits: int
    axis: int

    def padded(self, shape: tuple[int, ...]) -> LayerWeights:
        """With zeros behind each axis up to `shape`."""
        extra = [(0, want - have) for want, have in zip(shape, self.codes.shape, strict=True)]
        scales, points = self.scales, self.zero_points
        if self.scales.ndim:
            scales = np.pad(scales, extra[self.axis], constant_values=1)
            points = np.pad(points, extra[self.axis])
        spread = np.broadcast_to(self._along_axis(points), shape).astype(np.int8)
        codes = np.where(np.pad(np.ones_like(self.codes, dtype=bool), extra), np.pad(self.codes, extra), spread)
        return replace(self, codes=codes, scales=scales, zero_points=points)

    def transposed(self) -> LayerWeights:
        """With the last two axes exchanged."""
        last = self.codes.ndim - 1
        axis = {last: last - 1, last - 1: last}.get(self.axis, self.axis)
        return replace(self, codes=np.ascontiguousarray(np.swapaxes(self.codes, last, last - 1)), axis=axis)

    def scaled(self, factor: float) -> LayerWeights:
        return self if factor == 1 else replace(self, scales=(self.scales * np.float32(factor)).astype(np.float32))

    def with_bias(self, bias: Array, input_scale: float) -> tuple[LayerWeights, Array | None]:
        """The weights and their bias as int32 in units of input_scale * scales; None for a bias of zeros.

        A channel whose weights are tiny next to its bias gets a larger scale, so that its bias fits into int32.
        """
        needed = np.abs(bias) / (input_scale * _BIAS_LIMIT)
        sizes = np.maximum(np.abs(self.scales), needed if self.scales.ndim else needed.max()).astype(np.float32)
        scales = np.copysign(sizes, self.scales)
        weights = self
        if (scales != self.scales).any():
            shrink = self._along_axis(self.scales.astype(np.float64) / scales)
            points = self._along_axis(self.zero_points.astype(np.float64))
            codes = np.round((self.codes - points) * shrink) + points
            weights = replace(self, codes=codes.astype(np.int8), scales=scales)
        stored = np.round(bias.astype(np.float64) / (input_scale * scales.astype(np.float64))).astype(np.int32)
        return weights, stored if bias.any() else None

    def _along_axis(self, numbers: Array) -> Array:
        return numbers.reshape([-1 if i == self.axis else 1 for i in range(self.codes.ndim)])


class IntegerWeights:
    """The weights of a graph as integers: the codes of their encodings, else the nearest ones, stored once each."""

    def __init__(
        self, view: GraphView, emission: Emission, encodings: Mapping[str, Encoding], grid_of: Callable[[str], GridSpec]
    ) -> None:
        self._view = view
        self._emission = emission
        self._encodings = encodings
        self._grid_of = grid_of
        self._stored: dict[tuple[str, bool, bytes], str] = {}

    def of(self, name: str, axis: int) -> LayerWeights:
        """Those of the initialiser `name`, output channels along `axis`.

        Raises InvalidRecipe if its encoding is none that integer kernels can multiply with.
        """
        content = self._view.constant(name)
        assert content is not None
        encoding = self._encodings.get(name)
        if encoding is not None:
            return _encoded(name, encoding, content, axis)
        return _along(name, self._nearest(layer_of(name), content, axis), axis, transposed=False)

    def of_rows(self, name: str) -> LayerWeights:
        """Those of stacked weights (directions, rows, inputs), as recurrent layers have them: a scale per row, or per
        direction. The rows are found among the encodings of the layer, in any order."""
        content = self._view.constant(name)
        assert content is not None
        layer = layer_of(name)
        candidates = [e for other, e in self._encodings.items() if layer_of(other) == layer and len(e.shape) == 2]
        parts = [_rows_among(matrix, candidates) or self._nearest(layer, matrix, 0) for matrix in content]
        along = [_along(name, part, 0, transposed=False) for part in parts]
        return LayerWeights(
            codes=np.stack([part.codes for part in along]),
            scales=np.stack([part.scales for part in along]),
            zero_points=np.stack([part.zero_points for part in along]),
            bits=max(part.bits for part in along),
            axis=1,
        )

    def emit(self, name: str, weights: LayerWeights, *, unsigned: bool = False) -> str:
        """Stores the codes, packed where that saves bytes; returns the name of the int8 tensor.

        unsigned: of a uint8 tensor instead, each code raised by 2^(bits - 1), for kernels that want that.
        """
        codes, bits = weights.codes, weights.bits
        key = (name, unsigned, codes.tobytes())
        if key not in self._stored:
            packed = codes.size - packed_bytes(codes.size, bits) > _UNPACKING_BYTES
            self._stored[key] = (
                self._emit_unsigned(name, weights, packed) if unsigned else self._emit(name, weights, packed)
            )
        return self._stored[key]

    def _nearest(self, layer: str, weights: Array, axis: int) -> IntegerCodes:
        return fit_grid(weights, self._grid_of(layer), axis).encode(weights)

    def _emit(self, name: str, weights: LayerWeights, packed: bool) -> str:
        if packed:
            return pack_integers(self._emission, weights.codes, weights.bits)
        return self._emission.named(name, weights.codes) if name else self._emission.constant(weights.codes)

    def _emit_unsigned(self, name: str, weights: LayerWeights, packed: bool) -> str:
        raised = (weights.codes.astype(np.int16) + 2 ** (weights.bits - 1)).astype(np.uint8)
        if not packed:
            return self._emission.named(name, raised)
        stored = emit_codes(self._emission, raised, weights.bits)
        return self._emission.add("Cast", stored, to=TensorProto.UINT8) if weights.bits == 4 else stored


def nearest_weights(content: Array) -> LayerWeights:
    """8 bits, symmetric, per index of axis 0, the largest weight exact: for weights that a pass makes up itself."""
    largest = np.abs(content.astype(np.float64)).reshape(len(content), -1).max(axis=1)
    scales = np.maximum(largest / _LARGEST_CODE, _SMALLEST_SCALE).astype(np.float32)
    codes = np.round(content / scales.reshape(-1, *[1] * (content.ndim - 1))).astype(np.int8)
    return LayerWeights(codes, scales, np.zeros(len(content), dtype=np.int8), 8, axis=0)


def _rows_among(wanted: Array, encodings: Sequence[Encoding]) -> IntegerCodes | None:
    """The codes of a matrix whose rows are rows of `encodings`; None if one is nowhere."""
    for encoding in encodings:
        if (
            not isinstance(encoding, IntegerCodes)
            or encoding.shape[1] != wanted.shape[1]
            or encoding.blocks is not None
        ):
            continue
        places = {row.tobytes(): index for index, row in enumerate(encoding.decode())}
        found = [places.get(row.tobytes()) for row in wanted]
        if None not in found:
            return encoding.take(np.array(found, dtype=np.int64))
    return None


def _encoded(name: str, encoding: Encoding, content: Array, axis: int) -> LayerWeights:
    if not isinstance(encoding, IntegerCodes):
        raise InvalidRecipe(
            f"{name} is stored as {type(encoding).__name__}, which integer kernels cannot multiply with; "
            "leave out that step, or this layer"
        )
    decoded = encoding.decode()
    for transposed in (False, True):
        values = decoded.T if transposed else decoded
        if values.ndim != content.ndim or any(a > b for a, b in zip(values.shape, content.shape, strict=True)):
            continue
        inside = tuple(slice(0, size) for size in values.shape)
        if np.array_equal(content[inside], values) and np.count_nonzero(content) == np.count_nonzero(values):
            return _along(name, encoding, axis, transposed=transposed).padded(content.shape)
    raise ParityError(
        f"{name}: its values are not those of its encoding; encode weights after everything else",
        max_error=float("inf"),
    )


def _along(name: str, codes: IntegerCodes, axis: int, *, transposed: bool) -> LayerWeights:
    """Codes with a scale per tensor or per output channel, in the graph's layout."""
    signed = codes.signed()
    parts = []
    for numbers in (codes.scale, codes.zero_point):
        spread = numbers.reshape([1] * (signed.ndim - numbers.ndim) + list(numbers.shape))
        if transposed:
            spread = spread.T
        channels = [size if i == axis else 1 for i, size in enumerate((signed.T if transposed else signed).shape)]
        blocked = codes.blocks is not None and codes.blocks != codes.shape
        if blocked or (numbers.size > 1 and list(spread.shape) != channels):
            raise InvalidRecipe(
                f"{name} has scales of groups, and integer kernels take one per output channel; "
                "encode it per channel, or leave this layer in float32"
            )
        parts.append(spread.reshape(-1) if numbers.size > 1 else spread.reshape(()))
    scales, points = parts
    points = points.astype(np.float64) - 2 ** (codes.bits - 1)
    if (points != np.round(points)).any():
        raise InvalidRecipe(
            f"{name} has zero points between two codes, which integer kernels do not have; "
            "encode it symmetrically, or leave this layer in float32"
        )
    if scales.ndim > points.ndim:
        points = np.broadcast_to(points, scales.shape)
    return LayerWeights(
        codes=signed.T if transposed else signed,
        scales=scales.astype(np.float32),
        zero_points=points.astype(np.int8),
        bits=codes.bits,
        axis=axis,
    )

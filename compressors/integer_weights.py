"""Weights and biases as integer kernels want them: int8 codes that an encoding has fixed, or fresh ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from compressors.encodings.bits import pack_integers, packed_bytes
from compressors.encodings.encoding import Encoding
from compressors.encodings.integers import IntegerCodes
from compressors.errors import InvalidRecipe, ParityError
from compressors.onnx_emission import Array
from compressors.quantized_graph import QuantizedGraph
from compressors.weight_codes import nearest_codes

_BIAS_LIMIT = 2.0**30
# Packed codes need a node that unpacks them, about this many bytes; below it they are stored as they are.
_UNPACKING_BYTES = 48


@dataclass(frozen=True)
class LayerWeights:
    """w = (codes - zero_points) * scales. codes: int8 in the graph's layout, each within `bits` signed bits.

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

    def scaled(self, factor: float) -> LayerWeights:
        return self if factor == 1 else replace(self, scales=(self.scales * np.float32(factor)).astype(np.float32))

    def with_bias(self, bias: Array, input_scale: float) -> tuple[LayerWeights, Array | None]:
        """The weights and their bias as int32 in units of input_scale * scales; None for a bias of zeros.

        A channel whose weights are tiny next to its bias gets a larger scale, so that its bias fits into int32.
        """
        needed = np.abs(bias) / (input_scale * _BIAS_LIMIT)
        scales = np.maximum(self.scales, needed if self.scales.ndim else needed.max()).astype(np.float32)
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


def layer_weights(graph: QuantizedGraph, name: str, axis: int) -> LayerWeights:
    """The integers of the initialiser `name`, output channels along `axis`: those of its encoding, else the nearest.

    Raises InvalidRecipe if the encoding is none that integer kernels can multiply with.
    """
    content = graph.view.constant(name)
    assert content is not None
    encoding = graph.encodings.get(name)
    if encoding is not None:
        return _encoded(name, encoding, content, axis)
    config = graph.config
    codes = nearest_codes(
        content,
        config.bits_of(name.removesuffix(".weight"))[0],
        axis=axis,
        granularity=config.weight_granularity,
        scheme=config.weight_scheme,
    )
    return _along(name, codes, axis, transposed=False)


def nearest_weights(content: Array) -> LayerWeights:
    """8 bits, symmetric, per index of axis 0: for weights that the pass makes up itself."""
    return _along("", nearest_codes(content, 8), 0, transposed=False)


def emit_weights(graph: QuantizedGraph, name: str, weights: LayerWeights) -> str:
    """Stores the codes, packed where that saves bytes; returns the name of the int8 tensor."""
    saved = weights.codes.size - packed_bytes(weights.codes.size, weights.bits)
    if saved <= _UNPACKING_BYTES:
        return graph.emission.named(name, weights.codes) if name else graph.emission.constant(weights.codes)
    key = (name, weights.codes.tobytes())
    if key not in graph.packed:
        graph.packed[key] = pack_integers(graph.emission, weights.codes, weights.bits)
    return graph.packed[key]


def _encoded(name: str, encoding: Encoding, content: Array, axis: int) -> LayerWeights:
    if not isinstance(encoding, IntegerCodes):
        raise InvalidRecipe(
            f"quantization: {name} is stored as {type(encoding).__name__}, which integer kernels cannot multiply with; "
            "leave out that step, or put the layer into float_layers"
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
                f"quantization: {name} has scales of groups, and integer kernels take one per output channel; "
                "encode it per channel, or put the layer into float_layers"
            )
        parts.append(spread.reshape(-1) if numbers.size > 1 else spread.reshape(()))
    scales, points = parts
    points = points.astype(np.float64) - 2 ** (codes.bits - 1)
    if (points != np.round(points)).any():
        raise InvalidRecipe(
            f"quantization: {name} has zero points between two codes, which integer kernels do not have; "
            "encode it symmetrically, or put the layer into float_layers"
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

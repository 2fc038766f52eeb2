"""Scales of codes: float32 numbers, stored in 16 bits where those hold them exactly."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from compressors.onnx_emission import Array, Emission


def round_scale(scale: Array) -> Array:
    """The nearest bfloat16 numbers, as float32: half the bytes in the file, at most 0.4 % off."""
    short: Array = scale.astype(ml_dtypes.bfloat16).astype(np.float32)
    return short


def shorten_scale(scale: Array) -> Array:
    """The next bfloat16 numbers that are not smaller (for positive scales), as float32: half the bytes in the file, at
    most 0.8 % coarser, and nothing is clipped."""
    bits = np.ascontiguousarray(scale, dtype=np.float32).view(np.uint32)
    shortened: Array = ((bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(np.float32)
    return shortened


def scale_bytes(scale: Array) -> int:
    """What `emit_scale` stores."""
    return _shortest(scale).nbytes


def emit_scale(emission: Emission, scale: Array) -> str:
    """Stores the numbers; the result is bfloat16 or float32."""
    stored = _shortest(scale)
    if stored.dtype == np.float32:
        return emission.constant(stored)
    return emission.raw(helper.make_tensor("", TensorProto.BFLOAT16, stored.shape, stored.tobytes(), raw=True))


def _shortest(scale: Array) -> Array:
    short = scale.astype(ml_dtypes.bfloat16)
    return short if np.array_equal(short.astype(np.float32), scale) else scale

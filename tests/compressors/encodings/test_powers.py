"""Codes of floats and of powers of two: what numpy decodes is what the runtime computes, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressors.encodings import Encoding, FloatEncoding
from compressors.encodings.floats import FloatName
from compressors.encodings.powers import nearest_powers
from compressors.encodings.scales import shorten_scale
from compressors.onnx_emission import Array
from tests.compressors.encodings.decoding import decoded_by_runtime, emission

VALUES: Array = np.random.default_rng(0).standard_t(3, (7, 5, 3)).astype(np.float32)


def agrees(encoding: Encoding, folder: Path) -> None:
    made = emission()
    result = decoded_by_runtime(made, encoding.emit(made), encoding.shape, folder)
    np.testing.assert_array_equal(result, encoding.decode())
    stored = sum(len(tensor.raw_data) for tensor in made.initializers.values())
    assert encoding.nbytes <= stored <= encoding.nbytes + 8 * 3
    rows = np.array([6, 0, 0, 2])
    np.testing.assert_array_equal(encoding.take(rows).decode(), encoding.decode()[rows])


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3", "float8_e5m2"])
@pytest.mark.parametrize("scaled", [False, True])
def test_floats(name: FloatName, scaled: bool, tmp_path: Path) -> None:
    scale = shorten_scale(np.abs(VALUES).max(axis=(1, 2), keepdims=True) / 7) if scaled else None
    agrees(FloatEncoding.of(VALUES, name, scale), tmp_path)


@pytest.mark.parametrize("bits", [2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(7, 1, 1), (1, 5, 1), ()])
def test_powers(bits: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    scale = np.exp2(np.random.default_rng(bits).integers(-20, 20, shape)).astype(np.float32)
    agrees(nearest_powers(VALUES, bits, scale), tmp_path)


def test_floats_round_to_even_and_clip() -> None:
    values = np.array([1 + 2**-9, 1 + 3 * 2**-9, 1e9, -1e9], dtype=np.float32)
    np.testing.assert_array_equal(FloatEncoding.of(values[:2], "bfloat16").decode(), [1, 1 + 2**-7])
    np.testing.assert_array_equal(FloatEncoding.of(values[2:], "float8_e4m3").decode(), [448, -448])

"""Grids for weights: what their levels reach, and that the searched ones round with less error."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.integer_grids import GridSpec, Scheme, WeightRange, fit_grid
from compressors.onnx_emission import Array


def weights(seed: int, *shape: int) -> Array:
    """With tails, as trained weights have them."""
    values: Array = np.random.default_rng(seed).standard_t(4, shape).astype(np.float32)
    return values


def error(weight: Array, spec: GridSpec, importance: Array | None = None) -> float:
    decoded = fit_grid(weight, spec, importance=importance).encode(weight).decode()
    return float((np.square(decoded - weight) * (1 if importance is None else importance)).sum())


@given(
    bits=st.integers(2, 8),
    group=st.sampled_from([0, 2, 7, 9, 64]),
    scheme=st.sampled_from(["symmetric", "affine"]),
    seed=st.integers(0, 50),
)
def test_no_weight_is_further_than_half_a_step(bits: int, group: int, scheme: Scheme, seed: int) -> None:
    weight = weights(seed, 4, 3, 3, 3)
    grid = fit_grid(weight, GridSpec(bits=bits, group_size=group, scheme=scheme, range="max"))
    scale, _ = grid.spread()
    slack = 1.0 if scheme == "affine" else 0.5  # a rounded zero point moves the ends by up to half a step
    assert np.all(np.abs(grid.encode(weight).decode() - weight) <= scale * (slack + 1e-4))
    assert np.array_equal(scale, scale.astype(ml_dtypes.bfloat16).astype(np.float32))


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("range_", ["max", "mse"])
def test_zero_is_a_level(scheme: Scheme, range_: WeightRange) -> None:
    weight = weights(0, 6, 20) + 1
    weight[:, ::3] = 0
    encoded = fit_grid(weight, GridSpec(bits=3, scheme=scheme, range=range_)).encode(weight)
    assert not encoded.decode()[:, ::3].any()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [0, 32])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_searched_scales_round_better(bits: int, group: int, scheme: Scheme) -> None:
    weight = weights(1, 16, 8, 3, 3) + 0.3
    plain, searched = (
        error(weight, GridSpec(bits=bits, group_size=group, scheme=scheme, range=r)) for r in ("max", "mse")
    )
    assert searched <= plain
    assert searched <= {2: 0.8, 3: 0.9, 4: 0.95, 8: 1.0}[bits] * plain


def test_errors_are_counted_where_they_matter() -> None:
    weight = weights(2, 8, 64)
    importance = np.where(np.arange(64) < 8, 100.0, 1.0).astype(np.float32)
    spec = GridSpec(bits=3)
    blind = fit_grid(weight, spec).encode(weight).decode()
    assert error(weight, spec, importance) < 0.95 * float((np.square(blind - weight) * importance).sum())


def test_groups_are_equally_long() -> None:
    grid = fit_grid(weights(3, 5, 3, 3, 3), GridSpec(bits=4, group_size=8))
    assert grid.blocks == (5, 4, 7)  # rows of 27 in four groups, one place filled up
    assert grid.scale.shape == (5, 4, 1)
    assert fit_grid(weights(3, 5, 32), GridSpec(bits=4, group_size=8)).blocks == (5, 4, 8)
    assert fit_grid(weights(3, 5, 6), GridSpec(bits=4, group_size=64)).blocks == (5, 1, 6)


def test_scales_follow_the_output_axis() -> None:
    weight = weights(4, 3, 4, 2) * np.array([1, 10, 100, 1000], dtype=np.float32)[:, None]
    grid = fit_grid(weight, GridSpec(bits=8, range="max"), output_axis=1)
    assert grid.scale.shape == (1, 4, 1)
    np.testing.assert_allclose(grid.scale.ravel(), np.abs(weight).max(axis=(0, 2)) / 127.5, rtol=0.008)


def test_constant_and_empty_channels() -> None:
    for value in (0.0, 0.25, -3.0):
        weight = np.full((2, 4), value, dtype=np.float32)
        for scheme in ("symmetric", "affine"):
            decoded = fit_grid(weight, GridSpec(bits=4, scheme=scheme)).encode(weight).decode()
            np.testing.assert_allclose(decoded, weight, rtol=0.01)

"""k-means on a line, against brute force and scikit-learn."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from compressors.clustering import Line, assign, dp_points, error, kmeans
from compressors.codebook_fitting import fit_codebook
from compressors.onnx_emission import Array

NUMBERS = st.lists(st.floats(-10, 10).map(lambda x: round(x, 1)), min_size=1, max_size=9)


def brute_force(values: Array, weights: Array, k: int) -> float:
    """The least error over all ways to cut the sorted numbers into at most k intervals."""
    order = np.argsort(values)
    values, weights = values[order], weights[order]
    least = np.inf
    for count in range(min(k, len(values))):
        for cuts in combinations(range(1, len(values)), count):
            total = 0.0
            for start, end in zip((0, *cuts), (*cuts, len(values)), strict=True):
                part, mass = values[start:end], weights[start:end]
                total += float((mass * (part - np.average(part, weights=mass)) ** 2).sum())
            least = min(least, total)
    return least


@given(NUMBERS, st.integers(1, 5), st.integers(0, 5))
def test_few_numbers_are_clustered_optimally(numbers: list[float], k: int, seed: int) -> None:
    values = np.array(numbers)
    weights = np.random.default_rng(seed).uniform(0.1, 3, len(values)) if seed else np.ones(len(values))
    line = Line(values, weights)
    centres = kmeans(line, k)
    assert len(centres) <= k
    assert np.all(np.diff(centres) > 0)
    assert error(line, centres) == pytest.approx(brute_force(values, weights, k), abs=1e-6)


@pytest.mark.parametrize("k", [4, 16, 64, 256])
@pytest.mark.parametrize("initialization", ["optimal", "linear", "kmeans++"])
def test_it_is_as_good_as_scikit_learn(k: int, initialization: str) -> None:
    values = np.random.default_rng(0).laplace(size=6000)
    line = Line(values)
    reference = KMeans(k, n_init=2, random_state=0).fit(values[:, None]).inertia_
    centres = kmeans(line, k, initialization)  # type: ignore[arg-type]
    assert len(centres) == k
    assert error(line, centres) < {"optimal": 1.001, "linear": 1.6, "kmeans++": 1.35}[initialization] * reference


def test_the_optimal_start_is_never_far_from_the_optimum() -> None:
    """Just more numbers than the dynamic programme takes, against the programme on all of them."""
    values = np.random.default_rng(1).standard_normal(dp_points(64) + 400)
    fine = kmeans(Line(values), 32)  # 1024 points: exact
    assert len(values) <= dp_points(32)
    grouped = kmeans(Line(np.concatenate([values, values + 1e-9])), 32)
    assert error(Line(values), grouped) < 1.002 * error(Line(values), fine)


def test_every_number_gets_its_nearest_centre() -> None:
    centres = np.array([-1.0, 0.0, 3.0])
    values = np.random.default_rng(0).uniform(-4, 4, 500)
    expected = np.abs(values[:, None] - centres).argmin(1)
    np.testing.assert_array_equal(assign(values, centres), expected)


def test_heavy_numbers_draw_centres_to_them() -> None:
    values = np.linspace(0, 1, 101)
    heavy = np.where(values > 0.8, 1000.0, 1.0)
    plain, drawn = (fit_codebook(values, 2, importance=weights) for weights in (None, heavy))
    assert (drawn.centroids > 0.8).sum() > (plain.centroids > 0.8).sum()


def test_zeros_stay_zero_and_the_rest_does_not_become_zero() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(2000) * 0.1
    values[rng.random(2000) < 0.5] = 0
    book = fit_codebook(values, 3)
    np.testing.assert_array_equal(book.decode() == 0, values == 0)
    assert len(book.centroids) == 8
    never = fit_codebook(values, 3, keep_zeros=False)
    assert len(never.centroids) == 8


@pytest.mark.parametrize("values", [np.zeros(9), np.full(9, 2.5), np.array([1e6, -1e6, 0.0])], ids=str)
def test_degenerate_weights_are_kept_exactly(values: Array) -> None:
    np.testing.assert_array_equal(fit_codebook(values, 2).decode(), values)

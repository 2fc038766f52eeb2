"""Observers against definitions that are written out the slow way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from compressors.observers import BINS, entropy_range, histogram_of, least_squares_range, percentile_range
from compressors.quantized_graph import affine, symmetric

Array = npt.NDArray[np.float64]


def values(kind: str) -> Array:
    rng = np.random.default_rng(0)
    drawn = {"normal": rng.normal, "laplace": rng.laplace}[kind.removesuffix("_relu")](size=40_000)
    return np.maximum(drawn, 0) if kind.endswith("_relu") else drawn


def observed(content: Array) -> tuple[npt.NDArray[np.int64], float, float]:
    low, high = float(content.min()), float(content.max())
    return histogram_of(content, low, high), low, high


def test_a_histogram_counts_every_value_once() -> None:
    content = values("normal")
    histogram, low, high = observed(content)
    expected, _ = np.histogram(content, BINS, (low, high))
    assert histogram.sum() == content.size
    assert np.abs(histogram - expected).sum() <= 20, "values on the border of two bins may fall to either side"


@pytest.mark.parametrize("percentile", [99.99, 99.0, 95.0])
def test_the_percentile_is_numpys(percentile: float) -> None:
    content = values("laplace")
    histogram, low, high = observed(content)
    found = percentile_range(histogram, low, high, percentile)
    width = (high - low) / BINS
    assert found == pytest.approx(np.percentile(content, [100 - percentile, percentile]), abs=2 * width)


def quantized(content: Array, low: float, high: float, levels: int) -> Array:
    scale, zero_point = affine(low, high, levels)
    result: Array = (np.clip(np.round(content / scale) + zero_point, 0, levels) - zero_point) * scale
    return result


@pytest.mark.parametrize("levels", [255, 15, 3])
@pytest.mark.parametrize("kind", ["laplace", "normal_relu"])
def test_least_squares_has_the_least_error_of_all_shrunk_ranges(kind: str, levels: int) -> None:
    content = values(kind)
    low, high = least_squares_range(*observed(content), levels)
    error = np.mean((content - quantized(content, low, high, levels)) ** 2)
    others = [
        np.mean((content - quantized(content, content.min() * f, content.max() * f, levels)) ** 2)
        for f in np.linspace(0.05, 1, 20)
    ]
    assert error < 1.02 * min(others)


def naive_entropy(content: Array, levels: int) -> float:
    """The threshold of Migacz 2017, slide 38, word by word, over 128 candidates."""
    magnitudes = np.abs(content[content != 0])
    histogram, edges = np.histogram(magnitudes, BINS, (0, magnitudes.max()))
    best = (np.inf, 0.0)
    for count in range(BINS // 128, BINS + 1, BINS // 128):
        if count <= levels:
            continue
        p = histogram[:count].astype(float)
        p[-1] += histogram[count:].sum()
        q = np.zeros(count)
        for level in range(levels):
            members = [i for i in range(count) if i * levels // count == level and histogram[i]]
            for i in members:
                q[i] = histogram[members].sum() / len(members)
        p, q = p / p.sum(), q / q.sum()
        divergence = sum(a * np.log(a / max(b, 1e-12)) for a, b in zip(p, q, strict=True) if a)
        best = min(best, (divergence, float(edges[count])))
    return best[1]


def test_entropy_is_that_of_the_slides() -> None:
    content = values("laplace_relu")
    low, high = entropy_range(*observed(content), 15)
    assert low == 0
    assert high == pytest.approx(naive_entropy(content, 15), abs=2 * content.max() / 128)
    assert high < 0.8 * content.max()


def test_entropy_clips_both_ends_at_one_magnitude_and_never_widens() -> None:
    content = values("laplace")
    low, high = entropy_range(*observed(content), 15)
    assert -low == high < 0.8 * np.abs(content).max()
    lopsided = np.concatenate([values("laplace_relu"), [-0.1]])
    assert entropy_range(*observed(lopsided), 255)[0] == -0.1


@pytest.mark.parametrize("levels", [255, 15])
def test_grids_hold_zero_exactly(levels: int) -> None:
    for low, high in [(-1.0, 3.0), (0.5, 2.0), (-2.0, -0.5), (0.0, 0.0)]:
        scale, zero_point = affine(low, high, levels)
        assert scale > 0
        assert 0 <= zero_point <= levels
        assert (0 - zero_point) * scale <= min(low, 0) + scale
        assert (levels - zero_point) * scale >= max(high, 0) - scale
    assert symmetric(-1.0, 3.0, levels)[1] == (levels + 1) // 2
    assert symmetric(-1.0, 3.0, levels)[0] == pytest.approx(3 / ((levels - 1) // 2))
    assert symmetric(0.0, 3.0, levels) == affine(0.0, 3.0, levels)

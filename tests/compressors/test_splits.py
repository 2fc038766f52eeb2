"""Splits are disjoint, complete, stratified and repeatable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.errors import InvalidData
from compressors.splits import split


@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=300),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
def test_disjoint_complete_and_stratified(labels: list[int], fraction: float, seed: int) -> None:
    classes = np.array(labels)
    kept, held = split(len(labels), classes, fraction, seed)
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert list(kept) == sorted(kept)
    assert list(held) == sorted(held)
    wanted = min(max(round(fraction * len(labels)), 1), len(labels) - 1)
    assert len(held) == wanted
    for value in set(labels):
        share = (classes == value).sum() * wanted / len(labels)
        assert abs((classes[held] == value).sum() - share) < 1


def test_the_seed_decides() -> None:
    labels = np.arange(1000) % 10
    first = split(1000, labels, 0.1, seed=1)[1]
    assert np.array_equal(first, split(1000, labels, 0.1, seed=1)[1])
    assert not np.array_equal(first, split(1000, labels, 0.1, seed=2)[1])


def test_without_labels() -> None:
    kept, held = split(10, None, 0.3, seed=0)
    assert (len(kept), len(held)) == (7, 3)


def test_a_class_with_one_row_is_no_problem() -> None:
    labels = np.array([0] * 50 + [7])
    kept, held = split(51, labels, 0.2, seed=0)
    assert len(held) == 10
    assert len(kept) == 41


@pytest.mark.parametrize(
    ("rows", "labels", "fraction", "message"),
    [
        (10, None, 0.0, "fraction=0.0"),
        (10, None, 1.0, "fraction=1.0"),
        (1, None, 0.5, "at least 2"),
        (10, np.zeros(9), 0.5, "one label per row"),
    ],
)
def test_what_cannot_be_split(rows: int, labels: np.ndarray[Any, Any] | None, fraction: float, message: str) -> None:
    with pytest.raises(InvalidData, match=message):
        split(rows, labels, fraction, seed=0)

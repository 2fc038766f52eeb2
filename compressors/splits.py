"""Splits of row numbers that keep the share of every class and come out the same for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np

from compressors.errors import InvalidData

Indices = np.ndarray[Any, np.dtype[np.int64]]


def split(rows_count: int, labels: np.ndarray[Any, Any] | None, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """(kept, held out), both ascending; together they are 0..rows_count-1.

    labels: (rows_count,) classes, or None for a plain random split. round(fraction * rows_count) rows are held out, at
    least one and at most all but one; every class gives its share, fractions of rows going to the largest remainders.
    Raises InvalidData for a fraction outside (0, 1), fewer than 2 rows or labels of another length.
    """
    if not 0 < fraction < 1:
        raise InvalidData(f"fraction={fraction}: must lie between 0 and 1")
    if rows_count < 2:
        raise InvalidData(f"{rows_count} rows cannot be split; at least 2 are needed")
    if labels is not None and labels.shape != (rows_count,):
        raise InvalidData(f"labels of shape {labels.shape} for {rows_count} rows; one label per row is needed")
    generator = np.random.default_rng(seed)
    wanted = min(max(round(fraction * rows_count), 1), rows_count - 1)
    classes = (
        np.zeros(rows_count, np.int64) if labels is None else np.unique(labels, return_inverse=True)[1].reshape(-1)
    )
    counts = np.bincount(classes)
    shares = counts * (wanted / rows_count)
    take = np.floor(shares).astype(np.int64)
    missing = wanted - int(take.sum())
    take[np.argsort(take - shares, kind="stable")[:missing]] += 1
    order = generator.permutation(rows_count)
    order = order[np.argsort(classes[order], kind="stable")]  # shuffled inside each class
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rank = np.arange(rows_count) - starts
    held = order[rank < np.repeat(take, counts)]
    chosen = np.zeros(rows_count, bool)
    chosen[held] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)

"""Which rows tune, which choose, and which confirm. Every row has one role."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressors.splits import split
from search.spec import DataSpec

DEFAULT_VALIDATION_FRACTION = 0.1
CONFIRM_FRACTION = 0.1

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """rows of one dataset, by the dataset's identifier in the job's specification."""

    dataset: str
    rows: Rows


@dataclass(frozen=True)
class Splits:
    """tuning: for training and calibration. validation: for choosing. test: for the winner alone, once."""

    tuning: Part
    validation: Part
    test: Part


def make_splits(
    data: DataSpec, strata: Rows | None, rows_of: dict[str, int], *, seed: int, groups: Rows | None = None
) -> Splits:
    """strata: of the train dataset, one per row; every part gets its share of each. rows_of: number of rows of each
    named dataset. groups: of the train dataset; a random share of whole groups is set aside then, strata do not count.

    Without `test` a further share of train is set aside before anything else is.
    """
    remaining = np.arange(rows_of[data.train], dtype=np.int64)
    chosen: dict[str, Part] = {}
    if data.validation_rows is not None:
        start, stop = data.validation_rows
        chosen["validation"] = Part(data.train, remaining[start:stop])
        remaining = np.concatenate([remaining[:start], remaining[stop:]])
    elif data.validation is not None:
        chosen["validation"] = Part(data.validation, np.arange(rows_of[data.validation], dtype=np.int64))
    if data.test is not None:
        chosen["test"] = Part(data.test, np.arange(rows_of[data.test], dtype=np.int64))
    else:
        remaining, held = _set_aside(remaining, strata, groups, CONFIRM_FRACTION, seed + 1)
        chosen["test"] = Part(data.train, held)
    if "validation" not in chosen:
        fraction = data.validation_fraction or DEFAULT_VALIDATION_FRACTION
        remaining, held = _set_aside(remaining, strata, groups, fraction, seed)
        chosen["validation"] = Part(data.train, held)
    return Splits(Part(data.train, remaining), chosen["validation"], chosen["test"])


def _set_aside(rows: Rows, strata: Rows | None, groups: Rows | None, fraction: float, seed: int) -> tuple[Rows, Rows]:
    if groups is not None:
        found, group = np.unique(groups[rows], return_inverse=True)
        _, chosen = split(len(found), None, fraction, seed)
        is_held = np.isin(group.reshape(-1), chosen)
        return rows[~is_held], rows[is_held]
    kept, held = split(len(rows), None if strata is None else strata[rows], fraction, seed)
    return rows[kept], rows[held]

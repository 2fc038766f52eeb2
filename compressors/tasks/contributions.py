"""Each row's contribution to a metric: the metric plus the row's influence on it.

A metric that is not a mean of rows (F1, AUC, R², perplexity) still has a standard error: to first order it is that of
a mean of contributions c_i = M + IF_i, where IF_i is the metric's influence function at row i (Hampel 1974, JASA 69).
Influences sum to zero, so the mean of the contributions is the metric itself; and the standard error of the difference
between two models on the same rows is that of the paired differences of their contributions.

torchmetrics 1.9 has no contributions. It sums in float32: R² of targets around 1e5 with a spread of 1 comes out as
0.9999 where 0.9070 is right. The AUC of one class is 0 with a warning, and NDCG loops over groups in Python, 46 times
slower. So metrics are computed here, from the same sums as their contributions; tests hold every one of them against
torchmetrics on data where that is right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


def ratios(top: Array, bottom: Array) -> tuple[Floats, Floats]:
    """(sum(top) / sum(bottom) per column, contributions to it per row and column); (rows, columns) each.

    Columns whose bottom is empty give 0. Influence of a ratio of means N / D: (n_i - N/D d_i) / mean(d).
    """
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    total = bottom.sum(axis=0)
    safe = np.where(total == 0, 1.0, total)
    value: Floats = np.where(total == 0, 0.0, top.sum(axis=0) / safe)
    contributions: Floats = value + (top - value * bottom) * (len(bottom) / safe)
    return value, contributions


def mean_of_columns(value: Floats, contributions: Floats, counted: npt.NDArray[np.bool_]) -> tuple[float, Floats]:
    """Over the columns that count; 0 if none does. value: (columns,), contributions: (rows, columns)."""
    if not counted.any():
        return 0.0, np.zeros(len(contributions))
    return float(value[counted].mean()), contributions[:, counted].mean(axis=1)


def auc(scores: Array, positive: npt.NDArray[np.bool_]) -> tuple[float, Floats]:
    """Area under the ROC curve, ties counting half; (rows,) each. 0.5 where one class is missing.

    Contributions from the placement values of DeLong et al. 1988, Biometrics 44.
    """
    rows, count = len(scores), int(positive.sum())
    if count in (0, rows):
        return 0.5, np.full(rows, 0.5)
    high, low = np.sort(scores[positive]), np.sort(scores[~positive])
    placement = np.empty(rows)
    placement[positive] = _below(low, scores[positive])
    placement[~positive] = 1.0 - _below(high, scores[~positive])
    area = float(placement[positive].mean())
    share = np.where(positive, count, rows - count) / rows
    return area, area + (placement - area) / share


def _below(ordered: Array, values: Array) -> Floats:
    """Share of `ordered` below each value, ties counting half."""
    twice = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    result: Floats = twice / (2.0 * len(ordered))
    return result


def average_precision(scores: Array, positive: npt.NDArray[np.bool_]) -> tuple[float, Floats]:
    """Mean over the positives of the precision at their score; (rows,) each. 0 without positives.

    With p = share of positives, A(s), B(s) = shares of positives and of rows at or above s, the influence of row i is
    (y_i A(s_i)/B(s_i) - p AP + E[y 1(s_i >= s) (y_i - A(s)/B(s)) / B(s)] - AP (y_i - p)) / p: its own precision, and
    what its presence does to the precision at every lower score.
    """
    rows, count = len(scores), int(positive.sum())
    if count == 0:
        return 0.0, np.zeros(rows)
    descending = np.argsort(-scores, kind="stable")
    ordered, labels = scores[descending], positive[descending].astype(np.float64)
    last = np.searchsorted(-ordered, -ordered, "right") - 1  # of the rows with the same score
    above = (last + 1) / rows
    precision = (np.cumsum(labels)[last] / rows) / above
    share = count / rows
    found = float((labels * precision).sum() / count)
    first = np.searchsorted(-ordered, -ordered, "left")
    lower_1 = _from(labels / above, first) / rows  # E[y 1(s_i >= s) / B(s)]
    lower_2 = _from(labels * precision / above, first) / rows
    influence = (labels * precision - share * found + labels * lower_1 - lower_2 - found * (labels - share)) / share
    contributions = np.empty(rows)
    contributions[descending] = found + influence
    return found, contributions


def _from(values: Floats, first: npt.NDArray[np.intp]) -> Floats:
    """Sum of `values` from each position in `first` to the end."""
    result: Floats = np.cumsum(values[::-1])[::-1][first]
    return result


def ndcg(scores: Array, grades: Array, groups: Array, cutoff: int | None) -> Floats:
    """(groups,) in ascending order of their ids: discounted gain by score over that of the best order.

    Järvelin & Kekäläinen 2002, with gains equal to the grades and discounts 1 / log2(place + 1). Rows with equal scores
    share the discounts of their places (McSherry & Najork 2008), so that a constant score earns nothing from the order
    of the file. Groups without any relevant row are left out: every order of them is right.
    """
    _, group = np.unique(groups, return_inverse=True)
    group = group.reshape(-1)
    best = _discounted(grades, grades, group, cutoff)
    gained = _discounted(scores, grades, group, cutoff)
    counted = best > 0
    result: Floats = gained[counted] / best[counted]
    return result


def _discounted(scores: Array, grades: Array, group: Array, cutoff: int | None) -> Floats:
    """(groups,) discounted gain when each group is sorted by `scores`, best first."""
    order = np.lexsort((-scores, group))
    sorted_group, sorted_score = group[order], scores[order]
    sizes = np.bincount(group)
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    discount = 1.0 / np.log2(place + 2.0)
    if cutoff is not None:
        discount[place >= cutoff] = 0.0
    new = np.ones(len(order), bool)
    new[1:] = (sorted_group[1:] != sorted_group[:-1]) | (sorted_score[1:] != sorted_score[:-1])
    tie = np.cumsum(new) - 1
    mean_discount = np.bincount(tie, discount) / np.bincount(tie)
    result: Floats = np.bincount(sorted_group, mean_discount[tie] * grades[order]).astype(np.float64)
    return result

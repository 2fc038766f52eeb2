"""GPTQ: rounds a weight column by column and lets the columns that are still free make up for the error.

Frantar et al. 2022, arXiv:2210.17323, after Optimal Brain Surgeon (Hassibi & Stork 1993). Minimises
||W X - Q X||^2 = tr(D H D^T), D = W - Q, H = X X^T, for the columns X that the layer sees. Differences from the paper's
code: scales are fixed beforehand (so that the columns' order is free with groups, too), everything is float64, rows
that masks keep at zero stay so, and a row that plain rounding serves better keeps it.
"""

from __future__ import annotations

import torch
from torch import Tensor

DAMPING = 0.01  # of the mean diagonal, the paper's value
_BLOCK = 128


def hessian(columns: Tensor) -> Tensor:
    """(groups, d, d), float64: mean of x x^T over columns (groups, d, n)."""
    x = columns.double()
    return x @ x.transpose(1, 2) / max(x.shape[2], 1)


def gptq(
    weight: Tensor, moments: Tensor, scale: Tensor, zero_point: Tensor, levels: int, mask: Tensor | None = None
) -> Tensor:
    """Codes (float64, whole numbers in 0 .. levels - 1) of `weight`.

    weight, scale, zero_point: (groups, rows, d); moments: (groups, d, d) from `hessian`; mask: bool, False where a
    weight has to be zero. Columns go in the order of falling diagonal of H (the paper's act-order).
    """
    return torch.stack(
        [
            _one_group(
                weight[g].double(),
                moments[g],
                scale[g].double(),
                zero_point[g].double(),
                levels,
                None if mask is None else mask[g],
            )
            for g in range(weight.shape[0])
        ]
    )


def rounding_error(difference: Tensor, moments: Tensor) -> Tensor:
    """Mean squared error of each output, (groups, rows), for a difference of weights (groups, rows, d)."""
    d = difference.double()
    return ((d @ moments) * d).sum(2)


def _one_group(
    weight: Tensor, moments: Tensor, scale: Tensor, zero_point: Tensor, levels: int, mask: Tensor | None
) -> Tensor:
    order = torch.argsort(moments.diagonal(), descending=True, stable=True)
    inverse = _inverse_factor(moments[order][:, order])
    w, s, z = weight[:, order].clone(), scale[:, order], zero_point[:, order]
    lives = None if mask is None else mask[:, order]
    codes = torch.empty_like(w)

    def rounded(column: Tensor, index: int) -> Tensor:
        code = (column / s[:, index] + z[:, index]).round().clamp(0, levels - 1)
        return code if lives is None else torch.where(lives[:, index], code, z[:, index])

    nearest = torch.stack([rounded(w[:, i], i) for i in range(w.shape[1])], 1)
    for start in range(0, w.shape[1], _BLOCK):
        end = min(start + _BLOCK, w.shape[1])
        errors = torch.empty(w.shape[0], end - start, dtype=w.dtype)
        for i in range(start, end):
            codes[:, i] = rounded(w[:, i], i)
            quantized = (codes[:, i] - z[:, i]) * s[:, i]
            errors[:, i - start] = (w[:, i] - quantized) / inverse[i, i]
            w[:, i:end] -= errors[:, i - start, None] * inverse[i, i:end]
        w[:, end:] -= errors @ inverse[start:end, end:]
    original = weight[:, order]
    by_row = [
        rounding_error(((found - z) * s - original)[None], moments[order][:, order][None])[0]
        for found in (codes, nearest)
    ]
    codes = torch.where((by_row[0] <= by_row[1])[:, None], codes, nearest)
    return codes[:, torch.argsort(order)]


def _inverse_factor(moments: Tensor) -> Tensor:
    """Upper Cholesky factor of the inverse of the damped H; inputs that are always zero get a diagonal of their own."""
    damped = moments.clone()
    diagonal = damped.diagonal()
    mean = diagonal.mean().clamp_min(1e-30)
    diagonal[diagonal == 0] = mean
    damping = DAMPING * mean
    while True:
        factor, problem = torch.linalg.cholesky_ex(damped + damping * torch.eye(len(damped), dtype=damped.dtype))
        if int(problem) == 0:
            inverse: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(factor), upper=True)
            return inverse
        damping = damping * 10

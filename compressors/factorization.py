"""Low-rank approximation of weights: truncated SVD, Tucker-2, and the best approximation of a layer's outputs.

Weights come as (out, in, *kernel). All of it is computed in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ITERATIONS = 30
CONVERGED = 1e-9  # relative change of the kept squared norm between two sweeps
RIDGE = 1e-7  # of the mean variance, added to every direction: those that the inputs never showed count a little


@dataclass(frozen=True)
class Factors:
    """W (out, in, *k) ~ left (out, r) * core (r, s, *k) * right (s, in). None stands for the identity."""

    core: Tensor
    left: Tensor | None
    right: Tensor | None = None

    def product(self) -> Tensor:
        """The approximation of W."""
        result = self.core
        if self.right is not None:
            result = torch.einsum("rs...,si->ri...", result, self.right)
        if self.left is not None:
            result = torch.einsum("or,ri...->oi...", self.left, result)
        return result


@dataclass(frozen=True)
class Moments:
    """Of a layer's outputs y (out,), without bias, and of z (out,): what its weight makes of inputs that lose the
    channels which `right` drops; without `right` z is y. yy, yz, zz: sums of products over everything seen, of
    deviations from the means where a bias can take up the rest. mean_y, mean_z: zero where none can."""

    yy: Tensor
    yz: Tensor
    zz: Tensor
    mean_y: Tensor
    mean_z: Tensor


def unfolded(weight: Tensor, axis: int) -> Tensor:
    """The matrix (length of `axis`, everything else)."""
    return weight.movedim(axis, 0).reshape(weight.shape[axis], -1)


def lost_energy(weight: Tensor, axis: int) -> Tensor:
    """(length + 1,): share of the squared norm that is lost by keeping the first 0, 1, … directions of `axis`.

    A zero weight loses nothing. Eckart & Young 1936 for matrices; for one axis of a tensor De Lathauwer et al. 2000
    (A Multilinear Singular Value Decomposition), equation 24.
    """
    values = torch.linalg.svdvals(unfolded(weight.double(), axis)).square()
    lost = weight.new_zeros(weight.shape[axis] + 1, dtype=torch.float64)
    lost[: len(values)] = values.flip(0).cumsum(0).flip(0)
    total = float(lost[0])
    return lost / total if total > 0 else torch.zeros_like(lost)


def svd_factors(weight: Tensor, rank: int) -> Factors:
    """The best approximation of the matrix (out, everything else) of a rank; both factors equally large."""
    rows, values, columns = torch.linalg.svd(unfolded(weight.double(), 0), full_matrices=False)
    root = values[:rank].sqrt()
    core = (root[:, None] * columns[:rank]).reshape(rank, *weight.shape[1:])
    return Factors(core=core, left=rows[:, :rank] * root)


def tucker_factors(weight: Tensor, out_rank: int, in_rank: int, *, iterations: int = ITERATIONS) -> Factors:
    """Tucker-2 by higher-order orthogonal iteration (De Lathauwer et al. 2000, On the Best Rank-(R1, …, RN)
    Approximation, algorithm 4.2), started from the truncated decompositions of both axes.

    iterations: sweeps at most; 0 keeps the start. A rank that is the whole axis leaves it as it is.
    """
    weight = weight.double()
    outputs, inputs = weight.shape[:2]
    left = _leading(unfolded(weight, 0), out_rank) if out_rank < outputs else None
    right = _leading(unfolded(weight, 1), in_rank) if in_rank < inputs else None
    kept = 0.0
    for _ in range(iterations if left is not None and right is not None else 0):
        left = _leading(unfolded(torch.einsum("oi...,is->os...", weight, right), 0), out_rank)
        half = torch.einsum("oi...,or->ri...", weight, left)
        right = _leading(unfolded(half, 1), in_rank)
        now = float(torch.einsum("ri...,is->rs...", half, right).square().sum())
        if now - kept <= CONVERGED * now:
            break
        kept = now
    core = weight
    if left is not None:
        core = torch.einsum("oi...,or->ri...", core, left)
    if right is not None:
        core = torch.einsum("ri...,is->rs...", core, right)
    return _level(Factors(core=core, left=left, right=None if right is None else right.T))


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """(rows, rank): the first left singular vectors, from the small Gram matrix."""
    return _eigenvectors(matrix @ matrix.T)[:, :rank]


def _eigenvectors(symmetric: Tensor) -> Tensor:
    """As columns, the largest eigenvalue's first."""
    vectors: Tensor = torch.linalg.eigh(symmetric)[1]
    return vectors.flip(1)


def _level(factors: Factors) -> Factors:
    """The same product with equally large factors, per value: what training with one learning rate wants."""
    present = [f for f in (factors.left, factors.core, factors.right) if f is not None]
    sizes = [float(f.square().mean().sqrt()) for f in present]
    if min(sizes) == 0:
        return factors
    goal = math.prod(sizes) ** (1 / len(sizes))
    left, core, right = factors.left, factors.core, factors.right
    core = core * (goal / float(core.square().mean().sqrt()))
    if left is not None:
        left = left * (goal / float(left.square().mean().sqrt()))
    if right is not None:
        right = right * (goal / float(right.square().mean().sqrt()))
    return Factors(core=core, left=left, right=right)


def _basis(right: Tensor) -> Tensor:
    """(in, s), orthonormal: the input channels that `right` (s, in) keeps."""
    basis: Tensor = torch.linalg.qr(right.double().T)[0]
    return basis


def restricted(weight: Tensor, right: Tensor) -> Tensor:
    """`weight`, blind to what `right` drops: the same shape."""
    basis = _basis(right)
    return torch.einsum("oi...,is,js->oj...", weight.double(), basis, basis)


def fit_outputs(factors: Factors, weight: Tensor, moments: Moments) -> tuple[Factors, Tensor]:
    """Factors of the same ranks with the least squared error of the layer's outputs, given `right`; and what the bias
    has to add, (out,).

    z is what `weight`, projected onto the channels that `right` keeps, makes of the inputs; the outputs y are predicted
    from it by the best linear map of rank r: y ~ U U^T R z, R = E[y z^T] E[z z^T]^-1, U the leading eigenvectors of
    E[y z^T] E[z z^T]^-1 E[z y^T] (reduced-rank regression; Izenman 1975, section 2). Any other choice of `left` and
    `core` is such a map too, so no factors with the same `right` are better on the inputs behind `moments`. Without
    `right`, z = y and R = 1: the leading directions of the outputs.
    """
    matrix, explained, seen, right = unfolded(weight.double(), 0), moments.yy, moments.mean_y, None
    inner = weight.shape[1:]
    if factors.right is not None:
        basis = _basis(factors.right)
        reduced = torch.einsum("oi...,is->os...", weight.double(), basis)
        ridge = _positive(RIDGE * moments.zz.diagonal().mean()) * torch.eye(len(moments.zz), dtype=torch.float64)
        solved = torch.linalg.solve(moments.zz + ridge, moments.yz.T)
        matrix, explained, seen = solved.T @ unfolded(reduced, 0), moments.yz @ solved, solved.T @ moments.mean_z
        right, inner = basis.T, reduced.shape[1:]
    if factors.left is None:
        return _level(Factors(matrix.reshape(-1, *inner), None, right)), moments.mean_y - seen
    # Directions that the inputs never showed are ranked by the weight alone.
    unseen = matrix @ matrix.T
    scale = RIDGE * moments.yy.diagonal().mean() / _positive(unseen.diagonal().mean())
    rank = factors.left.shape[1]
    left = _eigenvectors(explained + scale * unseen)[:, :rank]
    shift = moments.mean_y - left @ (left.T @ seen)
    core = left.T @ matrix
    balance = _positive(core.norm(dim=1)).sqrt()
    core, left = core / balance[:, None], left * balance
    fitted = Factors(core.reshape(rank, *inner), left, right)
    return (fitted if right is None else _level(fitted)), shift


def _positive(value: Tensor) -> Tensor:
    return value.clamp_min(torch.finfo(torch.float32).tiny)

"""Rank and energy arithmetic against numpy, Tucker-2 and the fit of outputs against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from compressors.factorization import Moments, fit_outputs, lost_energy, restricted, svd_factors, tucker_factors


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_lost_energy_is_that_of_numpys_singular_values() -> None:
    weight = random(7, 5, 3)
    for axis in (0, 1):
        matrix = np.moveaxis(weight.numpy(), axis, 0).reshape(weight.shape[axis], -1)
        energies = np.linalg.svd(matrix, compute_uv=False) ** 2
        expected = [1 - energies[:rank].sum() / energies.sum() for rank in range(len(energies) + 1)]
        np.testing.assert_allclose(lost_energy(weight, axis).numpy(), expected, atol=1e-12)


def test_lost_energy_of_fewer_columns_than_rows_ends_in_zeros() -> None:
    lost = lost_energy(random(6, 2), 0)
    assert lost.shape == (7,)
    assert lost[0] == 1
    assert torch.equal(lost[2:], torch.zeros(5, dtype=torch.float64))
    assert torch.equal(lost_energy(torch.zeros(3, 4), 0), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(6, 9), (6, 4, 3), (5, 4, 3, 3)])
def test_svd_factors_are_the_truncated_decomposition(shape: tuple[int, ...]) -> None:
    weight = random(*shape)
    rows, values, columns = np.linalg.svd(weight.numpy().reshape(shape[0], -1), full_matrices=False)
    expected = (rows[:, :3] * values[:3] @ columns[:3]).reshape(shape)
    factors = svd_factors(weight, 3)
    np.testing.assert_allclose(factors.product().numpy(), expected, atol=1e-10)
    assert factors.left is not None
    np.testing.assert_allclose(factors.left.norm(dim=0), factors.core.flatten(1).norm(dim=1), rtol=1e-9)


def test_tucker_of_whole_ranks_is_exact_and_has_no_outer_factors() -> None:
    weight = random(6, 5, 3, 3)
    whole = tucker_factors(weight, 6, 5)
    assert whole.left is None
    assert whole.right is None
    assert torch.equal(whole.product(), weight)
    one = tucker_factors(weight, 6, 3)
    assert one.left is None
    kept = 1 - lost_energy(weight, 1)[3]
    assert float(one.product().square().sum()) == pytest.approx(float(kept * weight.square().sum()))


def test_tucker_finds_a_weight_that_has_such_ranks() -> None:
    weight = torch.einsum("rsk,or,si->oik", random(2, 3, 4), random(7, 2, seed=1), random(3, 6, seed=2))
    assert torch.allclose(tucker_factors(weight, 2, 3).product(), weight, atol=1e-10)


def test_sweeps_of_tucker_do_not_lose_more_than_its_start_and_the_bound() -> None:
    weight = random(8, 7, 3, 3)
    lost = []
    for iterations in (0, 1, 30):
        product = tucker_factors(weight, 3, 2, iterations=iterations).product()
        lost.append(float((weight - product).square().sum() / weight.square().sum()))
        # The approximation is a projection: what it keeps and what it loses add up.
        assert float(product.square().sum() / weight.square().sum()) == pytest.approx(1 - lost[-1])
    assert lost[2] < lost[1] <= lost[0]
    assert lost[0] <= float(lost_energy(weight, 0)[3] + lost_energy(weight, 1)[2])
    assert lost[2] >= float(max(lost_energy(weight, 0)[3], lost_energy(weight, 1)[2]))


def moments_of(y: Tensor, z: Tensor, *, centred: bool) -> Moments:
    means = (y.mean(0), z.mean(0)) if centred else (torch.zeros(y.shape[1]), torch.zeros(z.shape[1]))
    a, b = y - means[0], z - means[1]
    return Moments(a.T @ a / len(a), a.T @ b / len(a), b.T @ b / len(a), means[0].double(), means[1].double())


def test_fitted_matrices_are_the_whitened_svd() -> None:
    """Wang et al. 2024, algorithm 1: SVD of W S with S the Cholesky factor of E[x x^T], and S^-1 behind it."""
    weight, inputs = random(6, 8), random(400, 8, seed=1) * torch.linspace(0.1, 3, 8)
    y = inputs @ weight.T
    fitted, shift = fit_outputs(svd_factors(weight, 2), weight, moments_of(y, y, centred=False))
    whitening = np.linalg.cholesky((inputs.T @ inputs / len(inputs)).numpy())
    rows, values, columns = np.linalg.svd(weight.numpy() @ whitening)
    expected = (rows[:, :2] * values[:2]) @ columns[:2] @ np.linalg.inv(whitening)
    np.testing.assert_allclose(fitted.product().numpy(), expected, atol=1e-5)
    assert torch.equal(shift, torch.zeros_like(shift))


def test_a_bias_takes_up_the_means() -> None:
    weight, inputs = random(6, 8), random(400, 8, seed=1) + 2
    y = inputs @ weight.T
    errors = []
    for centred in (False, True):
        fitted, shift = fit_outputs(svd_factors(weight, 2), weight, moments_of(y, y, centred=centred))
        errors.append(float((inputs @ fitted.product().T + shift - y).square().mean()))
    assert errors[1] < errors[0]


def test_fitted_kernels_are_never_worse_than_tucker() -> None:
    """Patches (channels, kernel) with channels far from white."""
    weight = random(9, 6, 3)
    patches = random(3000, 6, 3, seed=3)
    patches = torch.einsum("nik,ij->njk", patches, random(6, 6, seed=4) * torch.linspace(0.1, 2, 6)[:, None])
    y = torch.einsum("nik,oik->no", patches, weight)
    for out_rank, in_rank in ((4, 3), (9, 3), (4, 5)):
        plain = tucker_factors(weight, out_rank, in_rank)
        assert plain.right is not None
        z = torch.einsum("nik,oik->no", patches, restricted(weight, plain.right))
        fitted, _ = fit_outputs(plain, weight, moments_of(y, z, centred=False))
        assert fitted.core.shape == plain.core.shape
        errors = [
            float((torch.einsum("nik,oik->no", patches, f.product()) - y).square().mean()) for f in (plain, fitted)
        ]
        assert errors[1] < 0.99 * errors[0]


def test_directions_without_inputs_follow_the_weight() -> None:
    """Inputs that show one direction only: the remaining rank keeps the largest rest of the weight."""
    weight = torch.diag(torch.tensor([1.0, 5.0, 4.0, 3.0], dtype=torch.float64))
    y = random(50, 1) * weight[:, 0]
    fitted, _ = fit_outputs(svd_factors(weight, 2), weight, moments_of(y, y, centred=False))
    assert torch.allclose(
        fitted.product(), torch.diag(torch.tensor([1.0, 5.0, 0.0, 0.0], dtype=torch.float64)), atol=1e-5
    )

"""GPTQ and AdaRound against rounding to nearest, on columns whose entries go together."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from compressors.adaround import Layer, adaround
from compressors.gptq import gptq, hessian, rounding_error

GROUPS, ROWS, LENGTH, LEVELS = 2, 6, 24, 8


def correlated(n: int = 800, seed: int = 0) -> Tensor:
    """(groups, length, n) mixed from a third as many sources."""
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randn(GROUPS, LENGTH // 3, n, generator=generator)
    mix = torch.randn(GROUPS, LENGTH, LENGTH // 3, generator=torch.Generator().manual_seed(9))
    return mix @ sources + 0.3 * torch.randn(GROUPS, LENGTH, n, generator=generator)


def weights(seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, scale, zero point."""
    weight = torch.randn(GROUPS, ROWS, LENGTH, generator=torch.Generator().manual_seed(seed))
    scale = (2.01 * weight.abs().amax(2, keepdim=True) / (LEVELS - 1)).expand_as(weight).contiguous()
    return weight, scale, torch.full_like(weight, LEVELS // 2)


def nearest(weight: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return (weight / scale + zero_point).round().clamp(0, LEVELS - 1)


def test_gptq_makes_up_for_errors() -> None:
    weight, scale, zero_point = weights()
    moments = hessian(correlated())
    codes = gptq(weight, moments, scale, zero_point, LEVELS)
    assert torch.equal(codes, codes.round()) and codes.min() >= 0 and codes.max() <= LEVELS - 1
    found = rounding_error((codes - zero_point) * scale - weight, moments)
    plain = rounding_error((nearest(weight, scale, zero_point) - zero_point) * scale - weight, moments)
    assert bool((found <= plain).all())
    assert float(found.sum()) < 0.5 * float(plain.sum())
    # On columns that it has not seen, too.
    unseen = hessian(correlated(seed=5))
    assert float(rounding_error((codes - zero_point) * scale - weight, unseen).sum()) < 0.5 * float(plain.sum())


def test_gptq_finds_the_pair_that_cancels() -> None:
    """Two equal inputs: only the sum of the two weights counts, 0.4 + 0.4 is best as 1 + 0."""
    weight = torch.tensor([[[0.4, 0.4]]])
    one = torch.ones_like(weight)
    columns = torch.tensor([[[1.0, -1.0, 2.0], [1.0, -1.0, 2.0]]])
    codes = gptq(weight, hessian(columns), one, 4 * one, LEVELS) - 4
    assert codes.flatten().tolist() in ([0, 1], [1, 0])


def test_gptq_with_independent_inputs_is_rounding_to_nearest() -> None:
    weight, scale, zero_point = weights()
    moments = torch.eye(LENGTH, dtype=torch.float64).expand(GROUPS, -1, -1)
    assert torch.equal(gptq(weight, moments, scale, zero_point, LEVELS).float(), nearest(weight, scale, zero_point))


def test_gptq_survives_inputs_that_are_always_zero() -> None:
    columns = correlated()
    columns[:, :5] = 0
    weight, scale, zero_point = weights()
    codes = gptq(weight, hessian(columns), scale, zero_point, LEVELS)
    assert bool(codes.isfinite().all())
    assert torch.equal(
        gptq(weight, hessian(0 * columns), scale, zero_point, LEVELS).float(), nearest(weight, scale, zero_point)
    )


def test_gptq_keeps_zeros() -> None:
    weight, scale, zero_point = weights()
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    codes = gptq(weight * mask, hessian(correlated()), scale, zero_point, LEVELS, mask)
    assert torch.equal(codes[~mask], zero_point[~mask].double())


def layer(relu: bool = False) -> Layer:
    weight, scale, zero_point = weights()
    columns = correlated()
    bias = torch.randn(GROUPS, ROWS, 1, generator=torch.Generator().manual_seed(4))
    return Layer(
        weight=weight,
        scale=scale,
        zero_point=zero_point,
        columns=columns,
        targets=weight @ columns + bias,
        bias=bias,
        low=0.0 if relu else -math.inf,
    )


def output_error(task: Layer, codes: Tensor) -> Tensor:
    produced = ((codes - task.zero_point) * task.scale) @ task.columns + task.bias
    return (produced.clamp(min=task.low) - task.targets.clamp(min=task.low)).square().mean(2)


@pytest.mark.parametrize("relu", [False, True])
def test_adaround_learns_which_way_to_round(relu: bool) -> None:
    task = layer(relu)
    codes = adaround(task, LEVELS, iterations=400, seed=0)
    places = task.weight / task.scale + task.zero_point
    assert torch.equal(codes, codes.round())
    assert bool(((codes - places).abs() <= 1 + 1e-5).all())  # down or up, nothing else
    found = output_error(task, codes)
    plain = output_error(task, nearest(task.weight, task.scale, task.zero_point))
    assert bool((found <= plain).all())
    assert float(found.sum()) < 0.5 * float(plain.sum())


def test_adaround_is_deterministic_and_keeps_zeros() -> None:
    task = layer()
    mask = torch.rand(task.weight.shape, generator=torch.Generator().manual_seed(3)) < 0.5
    masked = replace(task, weight=task.weight * mask, mask=mask)
    one, other = (adaround(masked, LEVELS, iterations=50, seed=7) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(one[~mask], task.zero_point[~mask])

"""AdaRound: learns for each weight whether to round it down or up, so that the layer's output stays as it was.

Nagel et al. 2020, arXiv:2004.10568. Minimises ||f(W x + b) - f(W~ x^ + b)||^2 + lambda sum(1 - |2 h - 1|^beta), eq. 25,
where W~ = s * (floor(W / s) + h), h a rectified sigmoid (eq. 23), x^ the input in the network whose earlier layers are
rounded already, and f the activation behind the layer. Columns are drawn from all calibration positions, so that
a step costs the same for a layer of few and of many positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Stretch of the sigmoid, eq. 23, and the schedule of the paper.
_GAMMA, _ZETA = -0.1, 1.1
_BETA = (20.0, 2.0)
_WARM_UP = 0.2
# On small correlated problems anything from 1 to 10 and from 0.03 to 0.1 ends within a few percent of one another.
_LAMBDA = 1.0
_LEARNING_RATE = 0.03
_COLUMNS = 256


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What is to be rounded, per group of output channels.

    weight, scale, zero_point: (groups, rows, d). columns: (groups, d, n), inputs as the rounded network sees them.
    targets: (groups, rows, n), outputs of the float network before the activation. bias: (groups, rows, 1).
    low, high: where the activation behind the layer clips; infinite without one. mask: False where a weight is zero.
    """

    weight: Tensor
    scale: Tensor
    zero_point: Tensor
    columns: Tensor
    targets: Tensor
    bias: Tensor
    low: float = float("-inf")
    high: float = float("inf")
    mask: Tensor | None = None


def adaround(layer: Layer, levels: int, iterations: int, seed: int) -> Tensor:
    """Codes (float32, whole numbers in 0 .. levels - 1) of the weight, (groups, rows, d).

    A row that rounding to nearest serves better on all columns keeps that. Deterministic under `seed`.
    """
    places = layer.weight / layer.scale + layer.zero_point
    floor = places.floor()
    nearest = _settled(layer, places.round(), levels)
    start = ((places - floor) - _GAMMA) / (_ZETA - _GAMMA)
    logits = torch.logit(start.clamp(1e-4, 1 - 1e-4)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=_LEARNING_RATE)
    wanted = layer.targets.clamp(layer.low, layer.high)
    # Errors are counted in units of what rounding to nearest does, so that one lambda serves every layer.
    unit = float(_errors(layer, nearest).sum()) or 1.0
    # Shuffled once: batches are then slices, and cheap.
    order = torch.randperm(layer.columns.shape[2], generator=torch.Generator().manual_seed(seed))
    columns, wanted = layer.columns[:, :, order], wanted[:, :, order]
    batches = max(len(order) // _COLUMNS, 1)
    for iteration in range(iterations):
        batch = slice(iteration % batches * _COLUMNS, (iteration % batches + 1) * _COLUMNS)
        with torch.enable_grad():
            up = (torch.sigmoid(logits) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)
            codes = (floor + up).clamp(0, levels - 1)
            values = (codes - layer.zero_point) * layer.scale
            if layer.mask is not None:
                values = values * layer.mask
            produced = (values @ columns[:, :, batch] + layer.bias).clamp(layer.low, layer.high)
            loss = (produced - wanted[:, :, batch]).square().mean(2).sum() / unit
            progress = iteration / iterations
            if progress >= _WARM_UP:
                beta = _annealed((progress - _WARM_UP) / (1 - _WARM_UP))
                loss = loss + _LAMBDA * (1 - (2 * up - 1).abs().pow(beta)).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    learned = _settled(layer, floor + (logits.detach() >= 0), levels)
    better = _errors(layer, learned) <= _errors(layer, nearest)
    return torch.where(better[:, :, None], learned, nearest)


def _annealed(progress: float) -> float:
    """beta falls from 20 to 2 along half a cosine."""
    first, last = _BETA
    return last + 0.5 * (first - last) * (1 + float(torch.cos(torch.tensor(progress * torch.pi))))


def _settled(layer: Layer, codes: Tensor, levels: int) -> Tensor:
    kept = codes.clamp(0, levels - 1)
    return kept if layer.mask is None else torch.where(layer.mask, kept, layer.zero_point)


def _errors(layer: Layer, codes: Tensor) -> Tensor:
    """(groups, rows): mean squared error of each output behind the activation, over all columns."""
    values = (codes - layer.zero_point) * layer.scale
    produced = (values @ layer.columns + layer.bias).clamp(layer.low, layer.high)
    return (produced - layer.targets.clamp(layer.low, layer.high)).square().mean(2)

"""Operators outside the usual layers: each group is one network, checked at another batch size than the traced one."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from compressors.aten_spellings import SPELLINGS
from compressors.errors import UnsupportedModel
from compressors.onnx_export import check_parity, export_onnx
from compressors.onnx_runtime import OnnxRuntime
from compressors.programs import to_modules
from tests.models import export

Function = Callable[[Tensor], tuple[Tensor, ...]]

# Inputs are normal numbers of shape (rows, 4, 6, 6).
GROUPS: dict[str, Function] = {
    "functions": lambda x: (
        x.sign() + x.atan() + x.sinh() + x.clamp(-0.9, 0.9).asin(),
        x.square() + x.expm1() + x.abs().log1p() + (x.abs() + 1).log2() + (x.abs() + 1).log10() + torch.erfc(x),
        (x * 1e-4).expm1() * 1e4,
        2.0**x + x.trunc() + x.frac() + F.logsigmoid(x) + F.softplus(x, 2) + F.rrelu(x),
        x.isfinite() | x.isnan(),
    ),
    "division": lambda x: (
        x % 0.7 + torch.fmod(x, 0.7),
        torch.div(x, 0.3, rounding_mode="floor") + torch.div(x, 0.3, rounding_mode="trunc"),
        (x * 9).to(torch.int64) // 4 + (x * 9).to(torch.int64) % 4,
    ),
    "activations": lambda x: (
        F.selu(x) + F.celu(x, 0.5) + F.softsign(x) + F.tanhshrink(x) + F.hardshrink(x) + F.softshrink(x),
        F.threshold(x, 0.1, 0.2) + F.softmin(x, 1) + F.mish(x),
        F.glu(x, 1),
    ),
    "limits": lambda x: (x.clamp(max=x.mean((1, 2, 3), keepdim=True)), torch.clamp(x, min=-x, max=x + 1)),
    "statistics": lambda x: (
        x.var(1) + x.std(1, unbiased=False) + x.logsumexp(1) + x.prod(1) + x.min(1).values,
        x.var((2, 3)) + x.std((2, 3), correction=0) + torch.var_mean(x, (2, 3))[1] + torch.std_mean(x, (2, 3))[0],
    ),
    "norms": lambda x: (
        x.norm(dim=1) + torch.linalg.vector_norm(x, 1, dim=1) + x.abs().norm(float("inf"), dim=1),
        F.normalize(x, dim=1) + F.instance_norm(x) + F.local_response_norm(x, 3),
        F.cosine_similarity(x[:, :2], x[:, 2:], dim=1),
    ),
    "order": lambda x: (
        *x.topk(2, 1),
        *x.sort(2, descending=True),
        x.argsort(1),
        x.argmin(2),
        (x > 0).any(1) & (x > -1).all(1),
    ),
    "shuffles": lambda x: (
        F.pixel_shuffle(x, 2),
        F.pixel_unshuffle(x, 3) + 1,
        F.channel_shuffle(x, 2) + x.flip(1, 3) + torch.roll(x, (1, -2), (2, 3)),
    ),
    "shapes": lambda x: (
        x.movedim(1, -1).swapaxes(1, 2) + x.permute(0, 2, 3, 1),
        torch.hstack([x.narrow(1, 1, 2), x[:, :1].broadcast_to(-1, 2, 6, 6)]) + x[:, :2].tile(1, 2, 1, 1),
        torch.cat(x.tensor_split(3, 1)[::-1], 1) + x.mT,
        x[:, :1].squeeze() + x.tril()[:, 0] + x.triu(1)[:, 1],
    ),
    "products": lambda x: (
        torch.baddbmm(x[:, 0], x[:, 1], x[:, 2], beta=0.5, alpha=2),
        torch.addcmul(x[:, 0], x[:, 1], x[:, 2], value=0.5),
        torch.tensordot(x, torch.ones(6, 3), 1),
        F.bilinear(x[..., 0], x[..., 1], torch.arange(108.0).view(3, 6, 6) / 100, torch.ones(3)) + x.new_zeros(1),
        torch.lerp(x, x * 2, 0.3) + torch.logaddexp(x, -x),
    ),
    "resizing": lambda x: (
        F.interpolate(x, scale_factor=2, mode="nearest-exact") + F.interpolate(x, scale_factor=2, mode="bicubic"),
        F.interpolate(x, size=(4, 3), mode="bilinear") + F.interpolate(x, size=(4, 3)),
        F.adaptive_avg_pool2d(x, (4, 3)),
        F.interpolate(x.flatten(2), scale_factor=2, mode="linear") + F.adaptive_avg_pool1d(x.flatten(2), 72),
        F.lp_pool2d(x, 2, 2),
    ),
    "windows": lambda x: (F.unfold(x, 3, padding=1), F.pad(x, (1, 2, 2, 1), mode="circular")),
    "choices": lambda x: (
        F.one_hot((x > 0).to(torch.int64), 3).sum(1),
        torch.zeros_like(x).scatter(1, (x > 0).to(torch.int64), x).scatter(2, (x[:, :, :1] > 0).to(torch.int64), 7.0),
    ),
}  # fmt: skip


class Group(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.function(x)


@pytest.mark.parametrize("name", GROUPS)
def test_operators(name: str) -> None:
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    module = to_modules(export(Group(GROUPS[name]), (x,)))
    model = export_onnx(module, (x,))
    onnx.checker.check_model(model)
    more = torch.cat([x, x.flip(0) * 1.5, x + 0.1])
    check_parity(module, OnnxRuntime().load_model(model, 1), (more,), tolerance=2e-5)


class Cells(nn.Module):
    """Recurrence written out by hand, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTMCell(3, 4)
        self.gru = nn.GRUCell(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        hidden, cell = x.new_zeros(x.shape[0], 4), x.new_zeros(x.shape[0], 4)
        state = x.new_zeros(x.shape[0], 5)
        for step in x.unbind(1):
            hidden, cell = self.lstm(step, (hidden, cell))
            state = self.gru(hidden, state)
        return state


def test_recurrent_cells_become_linear_layers() -> None:
    torch.manual_seed(0)
    model, x = Cells().eval(), torch.randn(2, 3, 3)
    module = to_modules(export(model, (x,)))
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    assert len(layers) == 4
    with torch.no_grad():
        torch.testing.assert_close(module(x), model(x))
    check_parity(module, OnnxRuntime().load_model(export_onnx(module, (x,)), 1), (torch.cat([x, -x]),), tolerance=1e-5)


def test_other_spellings_are_gone_after_intake() -> None:
    x = torch.randn(2, 4, 6, 6)
    module = to_modules(export(Group(GROUPS["shapes"]), (x,)))
    called = {str(node.target).split(".")[1] for node in module.graph.nodes if "aten." in str(node.target)}
    assert called
    assert not called & SPELLINGS


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (lambda x: torch.roll(x, 1, 0), "roll of the batch"),
        (lambda x: x.sort(0)[0], "sorting along the batch"),
        (lambda x: x.var(0), "variance over the batch"),
        (lambda x: torch.linalg.vector_norm(x, 3, dim=1), "order 3"),
    ],
)
def test_what_depends_on_the_batch_is_refused(function: Callable[[Tensor], Tensor], named: str) -> None:
    x = torch.randn(2, 4, 6, 6)
    with pytest.raises(UnsupportedModel, match=named):
        export_onnx(to_modules(export(Group(lambda y: (function(y),)), (x,))), (x,))

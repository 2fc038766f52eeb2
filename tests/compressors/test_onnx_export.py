"""What is exported computes what torch computes, for any batch, in few bytes and little time."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from compressors.errors import ParityError, UnsupportedModel
from compressors.onnx_emission import EMITTERS, emits
from compressors.onnx_export import check_parity, export_onnx, serialize
from compressors.onnx_runtime import OnnxRuntime
from compressors.programs import to_modules
from tests.models import MODELS, build, example_inputs, export, exported


class Function(nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(x)


def parity(model: nn.Module, x: Tensor, tolerance: float = 1e-5) -> onnx.ModelProto:
    """Exports for the batch of `x`, compares with twice that batch."""
    module = to_modules(export(model.eval(), (x,)))
    exported_model = export_onnx(module, (x,))
    onnx.checker.check_model(exported_model)
    session = OnnxRuntime().load_model(exported_model, 1)
    check_parity(module, session, (torch.cat([x, x.flip(0)]),), tolerance=tolerance)
    return exported_model


@pytest.mark.parametrize("name", MODELS)
def test_families(name: str) -> None:
    module = to_modules(exported(name))
    inputs = example_inputs(name)
    model = export_onnx(module, [x[:1] for x in inputs])
    onnx.checker.check_model(model)
    session = OnnxRuntime().load_model(model, 1)
    check_parity(module, session, [torch.cat([x, x[:1]]) for x in inputs], tolerance=1e-4)
    names = [node.target for node in module.graph.nodes if node.op == "placeholder"]
    assert [item.name for item in model.graph.input] == names
    assert [item.name for item in model.graph.output] == ["output"]
    assert model.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), (2, 4, 11)),
        (nn.Conv3d(2, 3, (1, 2, 3), padding=(0, 1, 1)), (2, 2, 4, 5, 6)),
        (nn.Conv2d(4, 4, (3, 5), padding="same", dilation=2, groups=2), (2, 4, 9, 9)),
        (nn.ConvTranspose1d(3, 4, 3, stride=2, padding=1, output_padding=1), (2, 3, 5)),
        (nn.ConvTranspose2d(4, 4, 3, stride=2, groups=2), (2, 4, 3, 4)),
        (nn.ConvTranspose3d(2, 3, 2), (2, 2, 3, 3, 3)),
        (nn.Linear(5, 3, bias=False), (2, 4, 5)),
        (nn.GroupNorm(2, 6), (2, 6, 4, 3)),
        (nn.LayerNorm([3, 4], bias=False), (2, 5, 3, 4)),
        (nn.MaxPool1d(3, 2, padding=1), (2, 3, 9)),
        (nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), (2, 3, 8, 8)),
        (nn.AvgPool2d(3, 2, padding=1), (2, 3, 8, 8)),
        (nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), (2, 3, 8, 8)),
        (nn.AvgPool3d(2), (2, 3, 4, 4, 4)),
        (nn.AdaptiveAvgPool2d((2, 1)), (2, 3, 8, 6)),
        (nn.AdaptiveAvgPool1d(1), (2, 3, 8)),
        (nn.AdaptiveMaxPool2d(2), (2, 3, 8, 6)),
        (nn.Upsample(scale_factor=2), (2, 3, 4, 5)),
        (nn.Upsample(size=(7, 9), mode="bilinear"), (2, 3, 4, 5)),
        (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), (2, 3, 4, 5)),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), (3, 4)),
    ],
    ids=str,
)
def test_layers(layer: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    parity(layer, torch.randn(shape))


FUNCTIONS: dict[str, Callable[[Tensor], Tensor | tuple[Tensor, ...]]] = {
    "activations": lambda x: F.silu(x) + F.hardswish(x) + F.hardsigmoid(x) + F.gelu(x) + F.elu(x) + torch.tanh(x),
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "leaky": lambda x: F.leaky_relu(x, 0.2) - F.relu6(x * 9) + F.hardtanh(x, -0.5, 0.5),
    "clamp": lambda x: x.clamp(-0.3, 0.4) + x.clamp(min=0.1) + x.clamp(max=-0.1) + x.clamp_min(0.2),
    "softmax": lambda x: torch.softmax(x, -1) + torch.log_softmax(x, 1),
    "scalars": lambda x: 2 - (3 * x + 1) / 4,
    "alpha": lambda x: torch.add(x, x.abs(), alpha=3) + torch.sub(x, 2, alpha=2),
    "powers": lambda x: x**2 + (x.abs() + 1).sqrt() + (x.abs() + 1).rsqrt() + x.exp() + (-x) + x.abs() ** 1.5,
    "reductions": lambda x: x.mean(1) + x.sum((1,)) + x.amax(1) + x.amin(1) + x.max(1).values,
    "spatial_mean": lambda x: x.mean((2, 3)) + x.mean((-1, -2), keepdim=True).flatten(1),
    "joins": lambda x: torch.cat([torch.stack([x, -x], 1).flatten(1, 2), x], 1),
    "splits": lambda x: torch.cat([*x.chunk(3, 1)[::-1], *torch.split(x, [1, 2], 1)[::-1]], 1),
    "unbind": lambda x: sum(x.unbind(1), torch.zeros(())),
    "slices": lambda x: x[:, 1:3, ::2, 1:] + x[:, :2, 0:4:2, -3:],
    "select": lambda x: x[:, -1].unsqueeze(1).expand(-1, 2, -1, -1) + x.select(2, 1)[:, :2, None].expand_as(x[:, :2]),
    "pad": lambda x: F.pad(x, (1, 2, 0, 0, 1, 1)) + F.pad(x, (0, 3, 0, 0, 2, 0), value=0.5),
    "pad_reflect": lambda x: F.pad(x, (1, 2, 1, 0), mode="reflect"),
    "moves": lambda x: x.permute(0, 2, 3, 1).transpose(1, 2).unsqueeze(1).squeeze(1).reshape(x.size(0), -1, 2),
    "merge_batch": lambda x: x.reshape(x.size(0) * 3, 4, 4).sum(1).view(x.size(0), 3, 4),
    "matmul": lambda x: torch.matmul(x, x.transpose(2, 3)) @ x,
    "where": lambda x: torch.where(x > 0.2, x, -x).masked_fill((x < 0) & (x.ne(0)), 7.0) + (x == x).to(torch.float32),
    "bits": lambda x: torch.where(~(x > 0) ^ (x < 1) | (x > 2) & (x < 3), (x * 9).to(torch.int64) & 5 | 2, 0),
    "comparison": lambda x: (x >= 0).float() * 2 + (x <= x.mean()).float() + torch.maximum(x, -x),
    "create": lambda x: x + torch.arange(4) + torch.ones_like(x) * torch.ones(x.size(0), 1, 1, 1) * 2.0,
    "attention": lambda x: F.scaled_dot_product_attention(x, x + 1, x * 2, is_causal=True),
    "attention_mask": lambda x: F.scaled_dot_product_attention(x, x, x, torch.ones(4, 4).tril() > 0, scale=0.7),
    "index": lambda x: x[:, torch.tensor([2, 0])] + x.new_ones(x.size(0), 1, 1, 4) + x.new_full((1,), 2),
    "gather": lambda x: x.gather(1, (x > 0).to(torch.int64) + 1) + x.gather(-1, (x > 0).to(torch.int64)),
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x) @ torch.einsum("... h w -> ... w h", x).sum(-1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, dim=1) + x.repeat_interleave(3, -1)[:, :1, :, :4],
    "outer": lambda x: torch.outer(x.mean((1, 2, 3)), torch.arange(3.0)) + x.view(x.numel() // 48, 3, 16).sum(-1),
    "rms_norm": lambda x: F.rms_norm(x, (4, 4)) + F.rms_norm(x, (4,), torch.tensor([1.0, 2.0, 3.0, 0.5]), 1e-3),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3])) + F.prelu(x, torch.tensor([0.5])),
    "argmax": lambda x: x.argmax(1),
    "cumsum": lambda x: x.cumsum(2),
    "two_outputs": lambda x: (x + 1, x.mean((1, 2, 3))),
    "normalise": lambda x: (x - torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1)) / 0.25,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    torch.manual_seed(1)
    model = parity(Function(FUNCTIONS[name]), torch.randn(2, 3, 4, 4))
    if name == "two_outputs":
        assert [item.name for item in model.graph.output] == ["output_0", "output_1"]


def test_parameters_keep_their_names_and_nothing_else_is_stored() -> None:
    module = to_modules(exported("option_a_resnet"))
    model = export_onnx(module, example_inputs("option_a_resnet"))
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"conv1.weight", "conv1.bias", "layer2.conv1.weight", "linear.weight", "linear.bias", "mean"} <= names
    assert not any("bn" in name for name in names)
    weights = sum(p.numel() for n, p in module.named_parameters() if not n.split(".")[-2].startswith("bn"))
    assert len(serialize(model)) < 4 * weights + 5500
    assert all(not node.doc_string and not node.name for node in model.graph.node)


def test_the_module_is_left_alone() -> None:
    module = to_modules(exported("plain_cnn")).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    export_onnx(module, example_inputs("plain_cnn"))
    assert module.training
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_export_is_deterministic_and_fast() -> None:
    module = to_modules(exported("option_a_resnet"))
    inputs = example_inputs("option_a_resnet")
    first = serialize(export_onnx(module, inputs))
    start = time.perf_counter()
    assert serialize(export_onnx(module, inputs)) == first
    assert time.perf_counter() - start < 1.0


def test_an_unknown_operator_is_named() -> None:
    module = to_modules(export(Function(lambda x: torch.special.i0(x)), (torch.randn(2, 3),)))
    with pytest.raises(UnsupportedModel, match=r"special_i0"):
        export_onnx(module, (torch.randn(2, 3),))


class Indexed(nn.Module):
    """Several index tensors side by side: stored ones, negative ones, given ones, one along the batch."""

    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor([0, 2, -1, 1]))

    def forward(self, x: Tensor, columns: Tensor) -> tuple[Tensor, ...]:
        batch = torch.arange(x.shape[0])
        stored = x[:, self.rows, self.rows.flip(0)]
        return (
            stored,
            x[:, :, self.rows[:, None], self.rows[1:]],
            x[:, self.rows[:2], columns[0]],
            x[batch, columns[:, 0]],
        )


def test_several_index_tensors() -> None:
    x, columns = torch.randn(3, 4, 5, 5), torch.tensor([[-2, 1], [0, 3], [2, -1]])
    module = to_modules(export(Indexed(), (x, columns)))
    session = OnnxRuntime().load_model(export_onnx(module, (x, columns)), 1)
    more = (torch.cat([x, -x]), torch.cat([columns, columns.flip(1)]))
    check_parity(module, session, more, tolerance=0)


class MaskIndexed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, torch.tensor([True, False, True])]


class ApartIndexed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, torch.tensor([0, 1]), :, torch.tensor([1, 0])]


@pytest.mark.parametrize(("model", "named"), [(MaskIndexed(), "masks"), (ApartIndexed(), "side by side")])
def test_indexing_that_is_refused(model: nn.Module, named: str) -> None:
    x = (torch.randn(2, 3, 4, 4),)
    with pytest.raises(UnsupportedModel, match=named):
        export_onnx(to_modules(export(model, x)), x)


def test_uneven_adaptive_maxima_are_refused() -> None:
    module = to_modules(export(nn.AdaptiveMaxPool2d(3).eval(), (torch.randn(2, 3, 7, 7),)))
    with pytest.raises(UnsupportedModel, match="divide evenly"):
        export_onnx(module, (torch.randn(2, 3, 7, 7),))


def test_an_operator_has_one_emitter() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        emits(nn.Linear)(EMITTERS[nn.Linear])


def test_a_difference_is_found() -> None:
    module = to_modules(exported("mlp"))
    x = example_inputs("mlp")
    other = build("mlp", seed=1)
    session = OnnxRuntime().load_model(export_onnx(to_modules(export(other, x)), x), 1)
    with pytest.raises(ParityError) as caught:
        check_parity(module, session, x, tolerance=1e-4)
    assert caught.value.max_error > 1e-4
    assert np.isfinite(caught.value.max_error)

"""Padded channels change shapes, never outputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from compressors.calibration import collect_ranges
from compressors.channel_alignment import align_channels
from compressors.onnx_export import export_onnx
from compressors.onnx_runtime import OnnxRuntime
from compressors.programs import to_modules
from compressors.recipe import Quantization
from compressors.static_quantization import quantize_onnx
from tests.models import export


class Branches(nn.Module):
    """stem -> (left, right 1x1) -> added; only the stem and what stands between convolutions may grow."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        stem, inner, out = channels
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        self.left1 = nn.Conv2d(stem, inner, 3, padding=1)
        self.left2 = nn.Conv2d(inner, out, 3, padding=1)
        self.right = nn.Conv2d(stem, out, 1)
        self.head = nn.Conv2d(out, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.sigmoid(self.stem(x)), 2)
        x = F.relu(self.left2(F.relu(self.left1(x))) + self.right(x))
        out: Tensor = self.head(x).flatten(1)
        return out


def exported_branches(*channels: int) -> onnx.ModelProto:
    torch.manual_seed(0)
    x = (torch.rand(2, 3, 16, 16),)
    return export_onnx(to_modules(export(Branches(*channels).eval(), x)), x)


def weight_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {t.name.split(".")[0]: tuple(t.dims[:2]) for t in model.graph.initializer if t.name.endswith("weight")}


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ((5, 10, 6), {"stem": (16, 3), "left1": (16, 16), "left2": (6, 16), "right": (6, 16)}),
        ((17, 18, 20), {"stem": (20, 3), "left1": (20, 20), "left2": (20, 20), "right": (20, 20)}),
        ((16, 22, 6), {"stem": (16, 3), "left1": (24, 16), "left2": (6, 24), "right": (6, 16)}),
    ],
)
def test_outputs_are_the_same(channels: tuple[int, ...], expected: dict[str, tuple[int, ...]]) -> None:
    model = exported_branches(*channels)
    aligned = align_channels(model, ())
    onnx.checker.check_model(aligned, full_check=True)
    shapes = weight_shapes(aligned)
    assert {name: shapes[name] for name in expected} == expected
    x = np.random.default_rng(0).random((3, 3, 16, 16), dtype=np.float32)
    before, after = (OnnxRuntime().load_model(m, 1).run([x])[0] for m in (model, aligned))
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_quantised_outputs_stay_close() -> None:
    model = exported_branches(5, 10, 6)
    rng = np.random.default_rng(0)
    data = [(rng.random((8, 3, 16, 16), dtype=np.float32),) for _ in range(4)]
    quantized = quantize_onnx(model, Quantization(), collect_ranges(model, data, Quantization(observer="min_max")))
    assert weight_shapes(quantized)["left1"] == (16, 16)
    expected, actual = (OnnxRuntime().load_model(m, 1).run(data[0])[0] for m in (model, quantized))
    assert np.sqrt(np.mean((expected - actual) ** 2)) < 0.05 * expected.std()


def test_aligned_models_are_returned_as_they_are() -> None:
    model = exported_branches(16, 20, 6)
    assert align_channels(model, ()) is model


@pytest.mark.parametrize("kept", ["left1", "left2"])
def test_float_layers_keep_their_channels(kept: str) -> None:
    shapes = weight_shapes(align_channels(exported_branches(16, 10, 6), (kept,)))
    assert shapes["left1"] == (10, 16)
    assert shapes["left2"] == (6, 10)


def test_small_images_are_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1))
    x = (torch.rand(2, 3, 6, 6),)
    model = export_onnx(to_modules(export(network.eval(), x)), x)
    assert align_channels(model, ()) is model

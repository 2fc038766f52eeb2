"""Ranges are what the data say, and no wider than the observer wants."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compressors.calibration import UNBOUNDED, collect_ranges, placeholder_ranges
from compressors.errors import InvalidData
from compressors.onnx_export import export_onnx
from compressors.onnx_runtime import OnnxRuntime
from compressors.programs import to_modules
from compressors.quantized_graph import affine
from compressors.recipe import Quantization
from compressors.recipes.quantization import Observer
from compressors.static_quantization import quantize_onnx
from tests.models import example_inputs, export, exported

MIN_MAX, PERCENTILE = Quantization(observer="min_max"), Quantization(observer="percentile")


def scaled_model() -> onnx.ModelProto:
    """y = relu(2 x), z = flatten(y)."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "two"], ["doubled"]),
            helper.make_node("Relu", ["doubled"], ["y"]),
            helper.make_node("Flatten", ["y"], ["z"]),
            helper.make_node("Neg", ["z"], ["output"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 500])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 1000])],
        [numpy_helper.from_array(np.array(2, dtype=np.float32), "two")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_min_max_spans_all_batches() -> None:
    batches = [(np.full((1, 2, 500), number, dtype=np.float32),) for number in (-3.0, 1.0, 5.0)]
    ranges = collect_ranges(scaled_model(), batches, MIN_MAX)
    assert ranges["x"] == (-3.0, 5.0)
    assert ranges["y"] == (0.0, 10.0)
    assert ranges["z"] == ranges["y"], "moved numbers keep their range"
    assert ranges["output"] == (-10.0, 0.0)
    assert "doubled" not in ranges, "what only a Relu reads is never stored"


def test_the_percentile_cuts_outliers() -> None:
    x = np.random.default_rng(0).normal(size=(100, 2, 500)).astype(np.float32)
    x[0, 0, 0] = 100.0
    batches = [(x[i : i + 25],) for i in range(0, 100, 25)]
    low, high = collect_ranges(scaled_model(), batches, PERCENTILE)["y"]
    assert 5.0 < high < 20.0
    assert low == pytest.approx(0.0, abs=0.1)
    assert collect_ranges(scaled_model(), batches, MIN_MAX)["y"] == (0.0, 200.0)


def rounding_error(x: npt.NDArray[np.float32], low: float, high: float) -> float:
    scale, zero_point = affine(low, high)
    stored = np.clip(np.round(x / scale) + zero_point, 0, 255)
    return float(np.mean((x - (stored - zero_point) * scale) ** 2))


def test_mse_clips_heavy_tails_to_the_least_error() -> None:
    x = np.random.default_rng(0).laplace(size=(2000, 2, 500)).astype(np.float32)
    batches = [(part,) for part in np.split(x, 10)]
    chosen = collect_ranges(scaled_model(), batches, Quantization(observer="mse"))["x"]
    widest = (float(x.min()), float(x.max()))
    assert chosen[1] < 0.95 * widest[1]
    assert rounding_error(x, *chosen) < 0.9 * rounding_error(x, *widest)
    for factor in (0.9, 1.1):
        assert rounding_error(x, *chosen) < rounding_error(x, chosen[0] * factor, chosen[1] * factor) * 1.01


@pytest.mark.parametrize("observer", ["percentile", "entropy", "mse"])
def test_uniform_data_keep_their_range(observer: Observer) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, size=(50, 2, 500)).astype(np.float32)
    low, high = collect_ranges(scaled_model(), [(x,)], Quantization(observer=observer))["x"]
    assert low == pytest.approx(-1, abs=0.02)
    assert high == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("observer", ["min_max", "percentile", "entropy", "mse"])
def test_constant_activations_are_no_special_case(observer: Observer) -> None:
    ranges = collect_ranges(
        scaled_model(), [(np.zeros((2, 2, 500), dtype=np.float32),)], Quantization(observer=observer)
    )
    low, high = ranges["y"]
    assert low <= 0 <= high < 0.01


def test_the_split_into_batches_does_not_matter() -> None:
    x = np.random.default_rng(0).normal(size=(24, 2, 500)).astype(np.float32)
    one = collect_ranges(scaled_model(), [(x,)], PERCENTILE)
    many = collect_ranges(scaled_model(), ((x[i : i + 5],) for i in range(0, 24, 5)), PERCENTILE)
    assert one == many


def test_placeholders_name_what_calibration_names() -> None:
    model = export_onnx(to_modules(exported("densenet")), example_inputs("densenet"))
    inputs = [tuple(x.numpy() for x in example_inputs("densenet"))]
    assert set(collect_ranges(model, inputs, MIN_MAX)) <= set(placeholder_ranges(model))


def test_no_data_and_bad_data_are_refused() -> None:
    with pytest.raises(InvalidData, match="at least one batch"):
        collect_ranges(scaled_model(), [], MIN_MAX)
    with pytest.raises(InvalidData, match="not a number"):
        collect_ranges(scaled_model(), [(np.full((1, 2, 500), np.nan, dtype=np.float32),)], MIN_MAX)


class Masked(nn.Module):
    """A mask on scores that come from an integer kernel, by a sum and by a choice."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.scores = nn.Linear(6, 4)
        self.number = number

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        scores = self.scores(x)
        added = torch.softmax(scores + torch.where(keep, 0.0, self.number), -1)
        return added + torch.softmax(scores.masked_fill(~keep, self.number), -1)


@pytest.mark.parametrize("number", [float("-inf"), float(np.finfo(np.float32).min), -1e9])
@pytest.mark.parametrize("observer", ["min_max", "percentile", "mse"])
def test_masks_have_no_range_and_stay_float(number: float, observer: Observer) -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(32, 6), torch.rand(32, 4) > 0.4)
    inputs[1][:, 0] = True
    model = export_onnx(to_modules(export(Masked(number).eval(), inputs)), inputs)
    config = Quantization(observer=observer)
    arrays = [tensor.numpy() for tensor in inputs]
    ranges = collect_ranges(model, [arrays], config)
    assert any(np.isinf(pair).any() for pair in ranges.values())
    assert all(np.isfinite(pair).all() or pair == UNBOUNDED for pair in ranges.values())
    quantized = quantize_onnx(model, config, ranges)
    expected, actual = (OnnxRuntime().load_model(m, 1).run(arrays)[0] for m in (model, quantized))
    assert np.abs(actual - expected).max() < 0.05
    assert (actual[~arrays[1]] == 0).all()

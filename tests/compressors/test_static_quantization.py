"""The int8 graph: integer kernels only, small, close to float32, and independent of the batch."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import numpy_helper
from sklearn.datasets import load_digits
from torch import Tensor, nn

from compressors.calibration import collect_ranges, placeholder_ranges
from compressors.errors import InvalidRecipe
from compressors.integer_weights import nearest_weights
from compressors.onnx_export import export_onnx, serialize
from compressors.onnx_graph import GraphView
from compressors.onnx_runtime import OnnxRuntime, kernel_summary
from compressors.programs import to_modules
from compressors.recipe import Quantization
from compressors.static_quantization import quantize_onnx
from tests.models import MODELS, conv_bn, example_inputs, export, exported

MIN_MAX = Quantization(observer="min_max")
FLOAT_KERNELS = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "NhwcFusedConv", "ConvInteger"}
Array = npt.NDArray[np.float32]


@functools.cache
def float_model(name: str) -> onnx.ModelProto:
    return export_onnx(to_modules(exported(name)), [x[:1] for x in example_inputs(name)])


def batches(name: str, count: int = 24) -> list[tuple[npt.NDArray[np.generic], ...]]:
    return [tuple(x.numpy() for x in example_inputs(name, seed)) for seed in range(count)]


@functools.cache
def int8_model(name: str, *float_layers: str) -> onnx.ModelProto:
    model = float_model(name)
    return quantize_onnx(model, Quantization(float_layers=float_layers), collect_ranges(model, batches(name), MIN_MAX))


def kernels(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    path = folder / "model.onnx"
    path.write_bytes(serialize(model))
    return kernel_summary(path)


def outputs(model: onnx.ModelProto, name: str) -> Array:
    session = OnnxRuntime().load_model(model, 1)
    return np.concatenate([session.run(batch)[0] for batch in batches(name)])


@pytest.mark.parametrize("name", MODELS)
def test_families_stay_close(name: str) -> None:
    expected, actual = outputs(float_model(name), name), outputs(int8_model(name), name)
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    assert np.sqrt(np.mean((actual - expected) ** 2)) < 0.06 * expected.std()


@pytest.mark.parametrize(
    "name", ["plain_cnn", "option_a_resnet", "densenet", "squeeze_excite", "two_inputs", "mobilenet"]
)
def test_only_integer_kernels_remain(name: str, tmp_path: Path) -> None:
    assert not FLOAT_KERNELS & set(kernels(int8_model(name), tmp_path))


def test_a_resnet_is_integers_from_end_to_end(tmp_path: Path) -> None:
    counted = kernels(int8_model("option_a_resnet"), tmp_path)
    assert counted["QuantizeLinear"] == 1, "the input, its normalisation folded in"
    assert counted["QLinearConv"] == 7 + 2, "two shortcuts are convolutions"
    assert counted["QLinearAdd"] == 3
    assert counted["QGemm"] == 1
    assert not {"DequantizeLinear", "Sub", "Div", "Relu", "Add", "Slice", "Pad"} & set(counted)


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_int8_and_biases_int32(name: str) -> None:
    """A float bias keeps older runtimes from integer kernels: 3.6 times slower, and nothing says so."""
    graph = int8_model(name).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("QLinearConv", "QGemm")]
    for node in layers:
        bias = node.input[8:9] if node.op_type == "QLinearConv" else node.input[6:7]
        assert types[node.input[3]] == onnx.TensorProto.INT8
        assert all(types[item] == onnx.TensorProto.INT32 for item in bias if item)
    assert layers or any(node.op_type == "MatMulIntegerToFloat" for node in graph.node)


def test_biases_are_int32_in_units_of_input_and_weight() -> None:
    model = int8_model("plain_cnn")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    original = {t.name: numpy_helper.to_array(t) for t in float_model("plain_cnn").graph.initializer}
    node = [n for n in model.graph.node if n.op_type == "QLinearConv"][1]
    weights, scales, bias = (constants[node.input[i]] for i in (3, 4, 8))
    assert weights.dtype == np.int8
    assert set(np.abs(weights.astype(int)).max(axis=(1, 2, 3)).tolist()) <= {126, 127, 128}
    assert bias.dtype == np.int32
    step = constants[node.input[1]] * scales
    np.testing.assert_allclose(bias * step, original["conv2.bias"], atol=step.max() / 2)


def test_weights_far_below_their_bias_do_not_overflow() -> None:
    weights = np.array([[1e-12], [1.0]], dtype=np.float32)
    stored, bias = nearest_weights(weights).with_bias(np.array([3.0, 3.0]), 0.01)
    assert bias is not None
    np.testing.assert_allclose(bias * 0.01 * stored.scales, [3.0, 3.0], rtol=0.01)
    np.testing.assert_allclose(stored.codes[:, 0] * stored.scales, weights[:, 0], atol=1e-10)


@pytest.mark.parametrize("name", ["option_a_resnet", "densenet", "bert"])
def test_a_sample_does_not_see_its_batch(name: str) -> None:
    session = OnnxRuntime().load_model(int8_model(name), 1)
    (rows,) = (np.concatenate([batch[0] for batch in batches(name, 4)]),)
    together = session.run([rows])[0]
    alone = np.concatenate([session.run([rows[i : i + 1]])[0] for i in range(len(rows))])
    np.testing.assert_array_equal(together, alone)


def test_float_layers_stay_float(tmp_path: Path) -> None:
    model = int8_model("option_a_resnet", "conv1", "layer2.conv2", "linear")
    counted = kernels(model, tmp_path)
    assert sum(counted[kind] for kind in FLOAT_KERNELS) == 3
    assert counted["QLinearConv"] == 9 - 2
    expected, actual = outputs(float_model("option_a_resnet"), "option_a_resnet"), outputs(model, "option_a_resnet")
    assert np.abs(actual - expected).max() < 0.05


def test_unknown_float_layers_are_refused() -> None:
    model = float_model("plain_cnn")
    with pytest.raises(InvalidRecipe, match=r"'conv9'.*'conv1'"):
        quantize_onnx(model, Quantization(float_layers=("conv9",)), placeholder_ranges(model))


@pytest.mark.parametrize("name", ["plain_cnn", "option_a_resnet", "bert", "unet"])
def test_placeholders_give_the_kernels_and_the_size_of_the_real_thing(name: str, tmp_path: Path) -> None:
    model = float_model(name)
    guess, real = quantize_onnx(model, Quantization(), placeholder_ranges(model)), int8_model(name)
    assert kernels(guess, tmp_path) == kernels(real, tmp_path)
    assert abs(len(serialize(guess)) - len(serialize(real))) < 150


def test_the_float_model_is_left_alone() -> None:
    model = float_model("option_a_resnet")
    before = serialize(model)
    quantize_onnx(model, Quantization(), placeholder_ranges(model))
    assert serialize(model) == before


def test_the_file_holds_little_but_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv_bn(3, 32), nn.ReLU(), conv_bn(32, 64), nn.ReLU(), conv_bn(64, 64), nn.ReLU()).eval()
    x = (torch.rand(2, 3, 8, 8),)
    exported_model = export_onnx(to_modules(export(model, x)), x)
    quantized = quantize_onnx(exported_model, Quantization(), placeholder_ranges(exported_model))
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d))
    channels = 32 + 64 + 64
    assert len(serialize(quantized)) < weights + 8 * channels + 1200
    assert len(serialize(quantized)) < 0.28 * len(serialize(exported_model))


class Odd(nn.Module):
    """Ranges that no operator can take in: a ReLU with other readers, moves of quantised values, odd paddings."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.conv3 = nn.Conv1d(16, 8, 3)
        self.conv4 = nn.Conv3d(8, 4, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.conv1(x)
        z = self.conv2(F.relu(y)) + y
        z = F.pad(z, (1, 1, 1, 1), value=0.25)
        z = F.max_pool2d(F.relu6(z), 3, 2)
        line = F.leaky_relu(self.conv3(z.flatten(2)))
        cube = self.conv4(line[:, :, :16].reshape(x.size(0), 8, 2, 2, 4))
        return y, F.relu(line), cube


def test_odd_graphs_stay_close_on_every_output(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = (torch.rand(2, 3, 16, 16),)
    model = export_onnx(to_modules(export(Odd().eval(), x)), x)
    data = [(torch.rand(4, 3, 16, 16).numpy(),) for _ in range(8)]
    quantized = quantize_onnx(model, Quantization(), collect_ranges(model, data, MIN_MAX))
    assert not FLOAT_KERNELS & set(kernels(quantized, tmp_path))
    reference, session = (OnnxRuntime().load_model(m, 1) for m in (model, quantized))
    for batch in data:
        for expected, actual in zip(reference.run(batch), session.run(batch), strict=True):
            assert np.abs(actual - expected).max() < 0.08 * (expected.max() - expected.min())


def test_hard_activations_are_integers(tmp_path: Path) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Hardswish(), nn.Conv2d(16, 8, 3), nn.Hardsigmoid(), nn.Conv2d(8, 4, 1), nn.Hardswish()
    )
    torch.manual_seed(0)
    x = (torch.rand(2, 3, 12, 12),)
    model = export_onnx(to_modules(export(network.eval(), x)), x)
    data = [(8 * torch.rand(8, 3, 12, 12).numpy(),) for _ in range(4)]
    quantized = quantize_onnx(model, Quantization(), collect_ranges(model, data, MIN_MAX))
    counted = kernels(quantized, tmp_path)
    assert not {"HardSwish", "HardSigmoid", "Mul"} & set(counted)
    assert (counted["QLinearConv"], counted["QLinearMul"], counted["DequantizeLinear"]) == (6, 2, 1)
    expected, actual = (OnnxRuntime().load_model(m, 1).run(data[0])[0] for m in (model, quantized))
    assert np.sqrt(np.mean((expected - actual) ** 2)) < 0.05 * expected.std()


def digits_network() -> nn.Sequential:
    return nn.Sequential(
        conv_bn(1, 16), nn.ReLU(), conv_bn(16, 16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
    )


@functools.cache
def trained_digits() -> tuple[onnx.ModelProto, Array, Array, npt.NDArray[np.int64]]:
    """Float model, calibration images, test images and labels."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.tensor(labels)
    torch.manual_seed(0)
    network = digits_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(4):
        for rows in torch.randperm(1400)[: 21 * 64].view(21, 64):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(network(x[rows]), y[rows]))
            optimizer.step()
    module = to_modules(export(network.eval(), (x[:2],)))
    return export_onnx(module, (x[:2],)), x[:256].numpy(), x[1400:].numpy(), labels[1400:]


@pytest.mark.parametrize("observer", ["min_max", "percentile", "entropy", "mse"])
def test_accuracy_survives(observer: str, tmp_path: Path) -> None:
    model, calibration, images, labels = trained_digits()
    config = Quantization(observer=observer)  # type: ignore[arg-type]
    ranges = collect_ranges(model, [(calibration[i : i + 64],) for i in range(0, 256, 64)], config)
    quantized = quantize_onnx(model, config, ranges)
    accuracies = []
    for candidate in (model, quantized):
        logits = OnnxRuntime().load_model(candidate, 1).run([images])[0]
        accuracies.append(float(np.mean(logits.argmax(axis=1) == labels)))
    assert accuracies[0] > 0.9
    assert accuracies[1] >= accuracies[0] - 0.01
    assert not FLOAT_KERNELS & set(kernels(quantized, tmp_path))


def test_layer_names_are_those_of_the_modules() -> None:
    assert GraphView(float_model("plain_cnn")).layer_names() == ("conv1", "conv2", "fc1", "fc2")

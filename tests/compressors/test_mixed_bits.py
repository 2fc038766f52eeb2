"""Bit widths per layer: what they do to codes, to the file and to the kernels that run."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import fx, nn

from benchmarks.families import FAMILIES
from benchmarks.families import exported as family_exported
from compressors.artifact import build_artifact
from compressors.encodings import FloatEncoding, IntegerCodes
from compressors.errors import InvalidRecipe
from compressors.integer_grids import GridSpec, fit_grid
from compressors.onnx_export import export_onnx, serialize
from compressors.onnx_graph import attributes
from compressors.onnx_runtime import OnnxRuntime, kernel_summary
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import Quantization, Recipe
from compressors.registry import Context
from compressors.state import state_of
from tests.conformance.technique import context_for, rows
from tests.models import conv_bn, export, exported

Array = npt.NDArray[np.float32]


def start(name: str) -> tuple[fx.GraphModule, Context]:
    model = to_modules(exported(name))
    return model, context_for(name, model)


def artifact(name: str, config: Quantization) -> onnx.ModelProto:
    model, context = start(name)
    return build_artifact(run_recipe(model, Recipe((config,)), context), context.example_inputs)


def kernels(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    path = folder / "model.onnx"
    path.write_bytes(serialize(model))
    return kernel_summary(path)


def test_one_scale_per_tensor_by_hand() -> None:
    weights = np.array([[0.1, -0.75, 0.09], [0.0, 0.02, -0.009]], dtype=np.float32)
    whole = fit_grid(weights, GridSpec(bits=4, range="max", per_tensor=True)).encode(weights)
    assert whole.scale.item() == pytest.approx(1.5 / 15, rel=0.01)
    assert whole.signed().tolist() == [[1, -7, 1], [0, 0, 0]]
    shifted = fit_grid(weights, GridSpec(bits=4, range="max", scheme="affine", per_tensor=True)).encode(weights)
    assert shifted.scale.item() == pytest.approx(0.85 / 15, rel=0.01)
    assert shifted.zero_point.tolist() == [[13]]


def test_each_layer_takes_its_bits_in_the_file() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(conv_bn(3, 32), nn.ReLU(), conv_bn(32, 64), nn.ReLU(), conv_bn(64, 64), nn.ReLU()).eval()
    x = (torch.rand(2, 3, 8, 8),)
    model = to_modules(export(network, x))
    context = Context(example_inputs=x, calibration=lambda: [x])

    def size(**widths: tuple[int, int]) -> int:
        names = {"first": "0.0", "second": "2.0", "third": "4.0"}
        config = Quantization(layer_bits={names[k]: v for k, v in widths.items()})
        return len(serialize(build_artifact(run_recipe(model, Recipe((config,)), context), x)))

    plain = size()
    second, third = 64 * 32 * 9, 64 * 64 * 9
    for widths, saved in [
        ({"second": (4, 8)}, second / 2),
        ({"third": (6, 8)}, third / 4),
        ({"second": (2, 8), "third": (5, 8)}, second * 3 / 4 + third * 3 / 8),
    ]:
        assert plain - size(**widths) == pytest.approx(saved, abs=700 + 700 * len(widths)), (
            "functions that unpack codes take a few bytes"
        )


@pytest.mark.parametrize("bits", [3, 4])
def test_packed_weights_run_on_the_kernels_of_whole_bytes(bits: int, tmp_path: Path) -> None:
    """Unpacking is folded before kernels look at their weights: the executed graph is the same."""
    plain, packed = (artifact("option_a_resnet", Quantization(weight_bits=b)) for b in (8, bits))
    assert kernels(packed, tmp_path) == kernels(plain, tmp_path)


def test_low_activations_use_few_levels() -> None:
    """Integers beyond the levels never occur, whoever writes them."""
    config = Quantization(activation_bits=4, layer_bits={"fc2": (8, 6)})
    model = artifact("plain_cnn", config)
    clips = {node.output[0] for node in model.graph.node if node.op_type == "Clip"}
    assert len(clips) >= 4
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    read: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type in ("QLinearConv", "QGemm", "QLinearAveragePool", "MaxPool"):
            read.setdefault(node.input[0], []).append(node.op_type)
    for name in read:
        observed.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    outputs = OnnxRuntime().load_model(observed, 1).run([x.numpy() for x in rows("plain_cnn")])
    largest = {name: int(array.max()) for name, array in zip(read, outputs[1:], strict=True)}
    gemms = [name for name, kinds in read.items() if "QGemm" in kinds]
    assert largest[gemms[-1]] in range(16, 64), "the input of fc2 has 6 bits"
    assert all(number <= 15 for name, number in largest.items() if name != gemms[-1])
    assert sum(number == 15 for number in largest.values()) >= 3


@functools.cache
def reference(name: str) -> Array:
    model, _ = start(name)
    with torch.no_grad():
        produced: Array = model(*rows(name)).numpy()
    return produced


@pytest.mark.parametrize(
    "config",
    [
        Quantization(weight_granularity="tensor"),
        Quantization(weight_scheme="affine"),
        Quantization(weight_scheme="affine", weight_granularity="tensor"),
        Quantization(activation_scheme="symmetric"),
        Quantization(weight_bits=6, activation_bits=7, observer="entropy"),
    ],
    ids=["tensor", "affine", "affine_tensor", "symmetric_activations", "w6a7"],
)
@pytest.mark.parametrize("name", ["option_a_resnet", "mobilenet", "bert"])
def test_every_grid_stays_close(name: str, config: Quantization) -> None:
    produced = OnnxRuntime().load_model(artifact(name, config), 1).run([x.numpy() for x in rows(name)])[0]
    expected = reference(name)
    assert np.sqrt(np.mean((produced - expected) ** 2)) < 0.12 * expected.std()


def test_affine_weights_have_zero_points_per_channel() -> None:
    model = artifact("plain_cnn", Quantization(weight_scheme="affine"))
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    node = next(n for n in model.graph.node if n.op_type == "QLinearConv")
    assert constants[node.input[5]].shape == (16,), "8 channels, padded"
    assert len(set(constants[node.input[5]].tolist())) > 1


@pytest.mark.parametrize("name", ["option_a_resnet", "bert", "split_and_shuffle"])
def test_codes_that_are_fixed_are_the_codes_that_run(name: str) -> None:
    """Codes far from the nearest ones, through padded channels and transposed matrices, come out as they went in."""
    model, context = start(name)
    quantized = run_recipe(model, Recipe((Quantization(weight_bits=5),)), context)
    state = state_of(quantized)
    rng = np.random.default_rng(0)
    for parameter in {id(p): n for n, p in quantized.named_parameters() if n in state.encodings}.values():
        encoding = state.encodings[parameter]
        assert isinstance(encoding, IntegerCodes)
        turned = (encoding.codes.astype(int) + rng.integers(-2, 3, encoding.shape)).clip(1, 31).astype(np.uint8)
        state.encodings[parameter] = IntegerCodes(turned, 5, encoding.scale, encoding.zero_point)
        with torch.no_grad():
            quantized.get_parameter(parameter).copy_(torch.from_numpy(state.encodings[parameter].decode()))
    graph = build_artifact(quantized, context.example_inputs)
    inputs = rows(name)
    with torch.no_grad():
        expected = quantized(*inputs).numpy()
        original = model(*inputs).numpy()
    produced = OnnxRuntime().load_model(graph, 1).run([x.numpy() for x in inputs])[0]
    assert np.abs(produced - expected).max() < 0.3 * np.abs(original - expected).max()
    assert not {t.name for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT} & set(state.encodings)


def test_tied_weights_share_their_codes() -> None:
    model, context = start("tied_weights")
    quantized = run_recipe(model, Recipe((Quantization(),)), context)
    state = state_of(quantized)
    names = [name for name, p in quantized.named_parameters(remove_duplicate=False) if name in state.encodings]
    shared = [n for n in names if quantized.get_parameter(n) is quantized.get_parameter(names[0])]
    assert len({id(state.encodings[n]) for n in shared}) == 1
    build_artifact(quantized, context.example_inputs)


@pytest.mark.parametrize("name", ["bert", "gru", "unet"])
def test_what_no_integer_kernel_reads_is_stored_in_few_bits(name: str) -> None:
    """Embeddings, a GRU, a transposed convolution."""
    program, inputs = family_exported(name), FAMILIES[name].inputs(2)
    model = to_modules(program)
    context = Context(example_inputs=inputs, calibration=lambda: [inputs])
    configs = [Quantization(stored_bits=bits) for bits in (0, 8, 4)]
    graphs = [build_artifact(run_recipe(model, Recipe((config,)), context), inputs) for config in configs]
    whole, eight, four = (len(serialize(graph)) for graph in graphs)
    stored = (torch.nn.Embedding, torch.nn.GRU, torch.nn.ConvTranspose2d)
    numbers = sum(
        p.numel() for m in model.modules() if isinstance(m, stored) for n, p in m.named_parameters() if "weight" in n
    )
    assert whole - eight == pytest.approx(3 * numbers, rel=0.25)
    assert eight - four == pytest.approx(numbers / 2, rel=0.25)
    expected, produced = (OnnxRuntime().load_model(g, 1).run([x.numpy() for x in inputs])[0] for g in graphs[:2])
    assert np.abs(expected - produced).max() < 0.1 * np.abs(expected).max()


def test_lstms_run_on_integers(tmp_path: Path) -> None:
    """Two layers in both directions: gates reordered, directions stacked, each with codes of its own."""
    inputs = FAMILIES["lstm_stacked"].inputs(4)
    model = to_modules(family_exported("lstm_stacked"))
    context = Context(example_inputs=inputs, calibration=lambda: [inputs])
    quantized = run_recipe(model, Recipe((Quantization(weight_bits=5),)), context)
    graph = build_artifact(quantized, inputs)
    counted = kernels(graph, tmp_path)
    assert counted["DynamicQuantizeLSTM"] == 2
    assert not counted["LSTM"]
    produced = OnnxRuntime().load_model(graph, 1).run([x.numpy() for x in inputs])[0]
    with torch.no_grad():
        rounded, original = quantized(*inputs).numpy(), model(*inputs).numpy()
    assert np.abs(produced - rounded).max() < 0.5 * np.abs(original - rounded).max()


def test_what_integer_kernels_cannot_do_is_refused() -> None:
    model, context = start("plain_cnn")
    state = state_of(model)
    weight = model.get_parameter("fc1.weight")
    half = FloatEncoding.of(weight.detach().numpy(), "float16")
    with torch.no_grad():
        weight.copy_(torch.from_numpy(half.decode()))
    state.encodings["fc1.weight"] = half
    with pytest.raises(InvalidRecipe, match=r"fc1.weight is stored as FloatEncoding.*leave out that step"):
        run_recipe(model, Recipe((Quantization(),)), context)
    run_recipe(model, Recipe((Quantization(float_layers=("fc1",)),)), context)
    for names, message in [
        ({"layer_bits": {"fc3": (4, 8)}}, r"layer_bits: 'fc3' is no layer; did you mean 'fc"),
        ({"float_layers": ("conv",)}, r"float_layers: 'conv' is no layer; did you mean 'conv"),
    ]:
        with pytest.raises(InvalidRecipe, match=message):
            run_recipe(model, Recipe((Quantization(**names),)), context)  # type: ignore[arg-type]


def test_layers_without_an_integer_kernel_are_named() -> None:
    model, context = start("unet")
    transposed = next(n for n, m in model.named_modules() if isinstance(m, nn.ConvTranspose2d))
    with pytest.raises(InvalidRecipe, match="no integer kernel for this layer"):
        run_recipe(model, Recipe((Quantization(layer_bits={transposed: (4, 8)}),)), context)
    exported_graph = export_onnx(model, context.example_inputs)
    assert any(node.op_type == "ConvTranspose" and attributes(node) for node in exported_graph.graph.node)

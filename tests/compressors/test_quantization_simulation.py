"""The simulation rounds where the integer graph rounds, and its gradients are those of the papers."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, fx

from benchmarks.families import FAMILIES
from benchmarks.families import exported as family_exported
from compressors.artifact import build_artifact
from compressors.channel_alignment import align_channels
from compressors.fake_quantization import Grid
from compressors.onnx_export import export_onnx
from compressors.onnx_graph import GraphView
from compressors.onnx_runtime import OnnxRuntime
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.quantization_simulation import simulate
from compressors.recipe import Quantization, Recipe
from compressors.registry import Context, Inputs
from compressors.state import StaticQuantization, state_of
from compressors.static_quantization import write_integers


def quantized_family(name: str, config: Quantization) -> tuple[fx.GraphModule, Inputs]:
    family = FAMILIES[name]
    context = Context(example_inputs=family.inputs(2), calibration=lambda: [family.inputs(32)])
    return run_recipe(to_modules(family_exported(name)), Recipe((config,)), context), family.inputs(16, seed=7)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("resnet_a", Quantization(activation_bits=6)),
        ("densenet", Quantization(activation_bits=5, activation_scheme="symmetric")),
        ("mobilenet_v2", Quantization(weight_granularity="tensor", weight_scheme="affine", activation_bits=6)),
    ],
)
def test_it_rounds_where_the_file_rounds(name: str, config: Quantization) -> None:
    """Integer by integer, as far as rounding to the other side, which random networks amplify, has not spread."""
    model, inputs = quantized_family(name, config)
    state = state_of(model)
    assert isinstance(state.activations, StaticQuantization) and state.activations.ranges is not None
    exported = export_onnx(model, inputs)
    graph = write_integers(GraphView(align_channels(exported, ())), config, state.activations.ranges, state.encodings)
    observed, points = graph.finished(), list(graph.points)
    for value in points:
        name = graph.points[value].quantized.name
        observed.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    produced = OnnxRuntime().load_model(observed, 1).run([x.numpy() for x in inputs])[1:]
    simulation = simulate(model, inputs, learned=False)
    assert simulation.activations.keys() == set(points)
    seen: dict[str, Tensor] = {}
    for value, grid in simulation.activations.items():
        grid.register_forward_hook(lambda _, __, output, value=value: seen.update({value: output}))
    with torch.no_grad():
        simulation.module.eval()(*inputs)
    for value, integers in list(zip(points, produced, strict=True))[:4]:
        quantized = graph.points[value].quantized
        real = (integers.astype(np.float32) - quantized.zero_point) * np.float32(quantized.scale)
        simulated = seen[value].numpy()
        steps = np.abs(real[:, : simulated.shape[1]] - simulated) / quantized.scale
        assert (steps > 0.5).mean() < 0.06


@pytest.mark.parametrize("name", ["bert", "mlp"])
def test_it_computes_what_the_file_computes(name: str) -> None:
    model, inputs = quantized_family(name, Quantization(weight_bits=3))
    produced = OnnxRuntime().load_model(build_artifact(model, inputs), 1).run([x.numpy() for x in inputs])[0]
    with torch.no_grad():
        simulated = simulate(model, inputs, learned=False).module.eval()(*inputs).numpy()
        original = to_modules(family_exported(name))(*inputs).numpy()
    assert np.abs(produced - simulated).max() < 0.3 * np.abs(produced - original).max()


def test_what_is_written_back_unchanged_gives_the_same_file() -> None:
    family = FAMILIES["resnet_a"]
    inputs = family.inputs(2)
    context = Context(example_inputs=inputs, calibration=lambda: [family.inputs(32)])
    config = Quantization(weight_bits=4, activation_bits=6, rounding="gptq")
    quantized = run_recipe(to_modules(family_exported("resnet_a")), Recipe((config,)), context)
    rows = [x.numpy() for x in family.inputs(32, seed=7)]
    before = OnnxRuntime().load_model(build_artifact(quantized, inputs), 1).run(rows)[0]
    simulate(quantized, inputs, learned=True).write_back(quantized, inputs)
    after = OnnxRuntime().load_model(build_artifact(quantized, inputs), 1).run(rows)[0]
    assert np.abs(after - before).max() < 0.1 * before.std()


def test_gradients_pass_inside_the_range_and_teach_the_step() -> None:
    """LSQ, equation 3: round(v) - v inside, the clipped end outside, times 1 / sqrt(count * levels)."""
    grid = Grid(torch.tensor(0.5), torch.tensor(2.0), 7, learned=True)
    x = torch.tensor([-3.0, -0.6, 0.3, 1.9, 9.0], requires_grad=True)
    rounded = grid(x)
    assert rounded.tolist() == [-1.0, -0.5, 0.5, 2.0, 2.5]
    torch.autograd.backward(rounded.sum())
    assert x.grad is not None and grid.size.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    expected = (-2 + (-1 + 1.2) + (1 - 0.6) + (4 - 3.8) + 5) / math.sqrt(5 * 7)
    assert grid.size.grad.item() == pytest.approx(expected, rel=1e-5)
    assert grid.codes(x).tolist() == [0, 1, 3, 6, 7]


def test_offsets_and_negative_scales_are_kept() -> None:
    grid = Grid(torch.tensor([[-0.5], [0.25]]), torch.tensor(4.0), 7, learned=True)
    assert grid(torch.tensor([[1.1], [1.1]])).tolist() == [[1.0], [0.75]]
    shifted = Grid(torch.tensor(0.5), torch.tensor(0.0), 7, learned=False, offset=torch.tensor([[0.1]]))
    assert shifted(torch.tensor([[0.7]])).item() == pytest.approx(0.6)

"""Dynamic quantisation as a step of a recipe, and the kernels that it leads to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compressors.artifact import build_artifact
from compressors.errors import InvalidRecipe
from compressors.onnx_export import serialize
from compressors.onnx_runtime import OnnxRuntime, kernel_summary
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import DynamicQuantization, Quantization, Recipe
from tests.conformance.technique import Case, TechniqueConformance, context_for, rows
from tests.models import exported

CASES = (
    Case("bert", DynamicQuantization(stored_bits=6)),
    Case("plain_cnn", DynamicQuantization(weight_bits=5, weight_granularity="tensor", layer_bits={"fc1": 4})),
    Case("mlp", DynamicQuantization(layers=("fc1", "fc3"))),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestDynamicQuantization(TechniqueConformance):
    tolerance = 0.05  # activations are rounded in the file and not in torch


def artifact(name: str, config: DynamicQuantization) -> onnx.ModelProto:
    model = to_modules(exported(name))
    context = context_for(name, model)
    return build_artifact(run_recipe(model, Recipe((config,)), context), context.example_inputs)


def kernels(model: onnx.ModelProto, folder: Path) -> Counter[str]:
    path = folder / "model.onnx"
    path.write_bytes(serialize(model))
    return kernel_summary(path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlp", {"DynamicQuantizeMatMul": 3}),
        # Queries, keys and values read one input, which is quantised once.
        ("bert", {"DynamicQuantizeMatMul": 7, "MatMulIntegerToFloat": 6, "DynamicQuantizeLinear": 2}),
        ("plain_cnn", {"ConvInteger": 2, "DynamicQuantizeMatMul": 2}),
    ],
)
def test_integer_kernels_run(name: str, expected: dict[str, int], tmp_path: Path) -> None:
    counted = kernels(artifact(name, DynamicQuantization()), tmp_path)
    assert {kind: counted[kind] for kind in expected} == expected
    assert not {"Gemm", "FusedGemm", "Conv", "FusedConv"} & set(counted)


@pytest.mark.parametrize("name", ["resnext", "vit", "unet", "tied_weights"])
def test_results_are_those_of_rounded_weights_and_inputs(name: str) -> None:
    model = to_modules(exported(name))
    inputs = rows(name, 6)
    with torch.no_grad():
        expected = model(*inputs).numpy()
    graph = artifact(name, DynamicQuantization())
    produced = OnnxRuntime().load_model(graph, 1).run([x.numpy() for x in inputs])[0]
    assert np.sqrt(np.mean((produced - expected) ** 2)) < 0.1 * expected.std()


def test_only_the_named_layers_become_integers(tmp_path: Path) -> None:
    counted = kernels(artifact("plain_cnn", DynamicQuantization(layers=("fc1",))), tmp_path)
    assert counted["DynamicQuantizeMatMul"] == 1
    assert not counted["ConvInteger"]


def test_what_has_no_kernel_is_refused() -> None:
    model = to_modules(exported("unet"))
    context = context_for("unet", model)
    transposed = next(n for n, m in model.named_modules() if isinstance(m, torch.nn.ConvTranspose2d))
    for config, message in [
        (DynamicQuantization(layers=(transposed,)), f"no integer kernel for layer '{transposed}'"),
        (DynamicQuantization(layers=("nowhere",)), "dynamic_quantization.layers: 'nowhere' is no layer"),
    ]:
        with pytest.raises(InvalidRecipe, match=message):
            run_recipe(model, Recipe((config,)), context)
    with pytest.raises(InvalidRecipe, match="activations are integers already"):
        run_recipe(model, Recipe((Quantization(), DynamicQuantization())), context)

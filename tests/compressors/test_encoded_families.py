"""Encoded weights of every kind of network arrive in the file as codes, in whatever arrangement the exporter needs."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch
from onnx import TensorProto

from benchmarks.families import FAMILIES, exported
from compressors.artifact import build_artifact
from compressors.layer_weights import layer_weights
from compressors.onnx_runtime import OnnxRuntime
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import FloatFormat, PowerOfTwo, Recipe, Step, WeightOnlyQuantization
from compressors.registry import Context

CASES: list[tuple[str, Step]] = [
    ("lstm_stacked", WeightOnlyQuantization(bits=3, group_size=8)),
    ("gru_stacked", WeightOnlyQuantization(bits=4)),
    ("gru", PowerOfTwo(bits=4)),
    ("dlrm", WeightOnlyQuantization(bits=4, group_size=4)),
    ("gpt", WeightOnlyQuantization(bits=5)),
    ("llama", FloatFormat(format="bfloat16")),
]


@pytest.mark.parametrize(("name", "config"), CASES, ids=lambda item: getattr(item, "technique", str(item)))
def test_all_weights_are_stored_as_codes(name: str, config: Step) -> None:
    model = to_modules(exported(name))
    made = run_recipe(model, Recipe((config,)), Context(example_inputs=FAMILIES[name].inputs(2)))
    built = build_artifact(made, FAMILIES[name].inputs(2))
    numbers = sum(weight.tensor.numel() for weight in layer_weights(made))
    floats = [prod(tensor.dims) for tensor in built.graph.initializer if tensor.data_type == TensorProto.FLOAT]
    assert sum(floats) < 0.2 * numbers  # biases, norms, tables of constants
    inputs = FAMILIES[name].inputs(3)
    result = OnnxRuntime().load_model(built, 1).run([tensor.numpy() for tensor in inputs])[0]
    with torch.no_grad():
        expected = made(*inputs).numpy()
    np.testing.assert_allclose(result, expected, atol=2e-4 * max(1.0, float(np.abs(expected).max())))

"""Files of pruned models: smaller, the same numbers, and nothing left to do at run time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import fx

from compressors.artifact import build_artifact
from compressors.onnx_export import export_onnx, serialize
from compressors.onnx_runtime import OnnxRuntime
from compressors.programs import to_modules
from compressors.recipe import Quantization
from compressors.registry import apply
from compressors.sparse_pass import store_sparse
from compressors.state import StaticQuantization, state_of
from compressors.static_quantization import quantize_onnx
from tests.conformance.technique import context_for
from tests.models import example_inputs, exported


def pruned(name: str, share: float) -> fx.GraphModule:
    """The model with the smallest weights of every layer set to zero."""
    model = to_modules(exported(name))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            least = parameter.detach().abs().flatten().kthvalue(max(1, int(parameter.numel() * share))).values
            parameter.data[parameter.detach().abs() <= least] = 0
    return model


def operators_at_run_time(content: bytes, folder: Path) -> list[str]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


@pytest.mark.parametrize("integers", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("share", [0.6, 0.95])
def test_zeros_leave_the_file_and_not_the_result(integers: bool, share: float, tmp_path: Path) -> None:
    model = pruned("plain_cnn", share)
    context = context_for("plain_cnn", model)
    if integers:
        model = apply(model, Quantization(), context)
    dense = export_onnx(model, context.example_inputs)
    if isinstance(activations := state_of(model).activations, StaticQuantization):
        assert activations.ranges is not None
        dense = quantize_onnx(dense, activations.config, activations.ranges, {})
    sparse = build_artifact(model, context.example_inputs)
    onnx.checker.check_model(sparse)
    assert len(serialize(sparse)) < (0.9 if integers else 0.75) * len(serialize(dense))
    assert operators_at_run_time(serialize(sparse), tmp_path) == operators_at_run_time(serialize(dense), tmp_path)
    outputs = []
    for index, artifact in enumerate((sparse, dense)):
        path = tmp_path / f"{index}.onnx"
        path.write_bytes(serialize(artifact))
        inputs = [tensor.numpy() for tensor in example_inputs("plain_cnn", seed=3)]
        outputs.append(OnnxRuntime().load(path, 1).run(inputs)[0])
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_a_dense_model_is_left_as_it_is() -> None:
    artifact = build_artifact(to_modules(exported("plain_cnn")), example_inputs("plain_cnn"))
    assert store_sparse(artifact) is artifact
    assert not artifact.functions


def test_a_sparse_tensor_keeps_its_name() -> None:
    artifact = build_artifact(pruned("plain_cnn", 0.9), example_inputs("plain_cnn"))
    assert "fc1.weight" not in {tensor.name for tensor in artifact.graph.initializer}
    assert "fc1.weight" in {name for node in artifact.graph.node for name in node.output}


def test_a_second_time_changes_nothing() -> None:
    artifact = build_artifact(pruned("plain_cnn", 0.9), example_inputs("plain_cnn"))
    assert store_sparse(artifact) is artifact


def test_negative_zeros_count_as_zeros() -> None:
    model = pruned("plain_cnn", 0.9)
    plain = serialize(build_artifact(model, example_inputs("plain_cnn")))
    for parameter in model.parameters():
        parameter.data = torch.where(parameter == 0, -0.0, parameter)
    assert len(serialize(build_artifact(model, example_inputs("plain_cnn")))) == len(plain)

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from compressors.onnx_runtime import OnnxRuntime, kernel_summary
from tests.conformance.runtime import RuntimeConformance


class TestOnnxRuntime(RuntimeConformance):
    @pytest.fixture
    def runtime(self) -> OnnxRuntime:
        return OnnxRuntime()

    @pytest.fixture
    def artifact(self, tmp_path: Path) -> Path:
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "x"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        path = tmp_path / "double.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    def test_the_summary_counts_what_runs(self, artifact: Path) -> None:
        assert kernel_summary(artifact) == {"Add": 1}

"""Decoding by the runtime: what a file with an encoded tensor holds once it is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from compressors.onnx_emission import Array, Emission


def decoded_by_runtime(emission: Emission, name: str, shape: tuple[int, ...], folder: Path) -> Array:
    """The float32 tensor `name` of `shape` as the runtime sees it. Asserts that all decoding is folded at load."""
    emission.nodes.append(helper.make_node("Mul", ["gain", name], ["output"]))
    inputs = [helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, list(shape))]
    model = emission.finish(emission.nodes, inputs, outputs)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "loaded.onnx")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left = [node.op_type for node in onnx.load(folder / "loaded.onnx").graph.node]
    assert left == ["Mul"], f"the runtime decodes at every call: {left}"
    result: Array = session.run(None, {"gain": np.ones(1, dtype=np.float32)})[0]
    return result


def emission() -> Emission:
    made = Emission()
    made.reserve("gain")
    made.reserve("output")
    return made

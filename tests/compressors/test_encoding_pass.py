"""Encoded weights are found in an exported graph in whatever arrangement the exporter has written them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compressors.artifact import build_artifact
from compressors.encoding_pass import store_encoded
from compressors.encodings import Encoding, IntegerCodes
from compressors.errors import ParityError
from compressors.onnx_emission import Array
from compressors.onnx_export import serialize
from compressors.onnx_runtime import OnnxRuntime
from compressors.programs import to_modules
from compressors.state import state_of
from tests.models import example_inputs, exported


def codes(seed: int, *shape: int) -> IntegerCodes:
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.01, 1, (shape[0], *[1] * (len(shape) - 1))).astype(np.float32)
    return IntegerCodes(rng.integers(0, 8, shape).astype(np.uint8), 3, scale, np.array(4, dtype=np.uint8))


def graph_of(name: str, content: Array) -> onnx.ModelProto:
    """x + initialiser."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", name], ["output"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, list(content.shape))],
        [numpy_helper.from_array(np.ascontiguousarray(content), name)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


FORWARD, BACKWARD = codes(0, 8, 3), codes(1, 8, 3)
GATES = np.array([0, 1, 6, 7, 2, 3, 4, 5])
ARRANGED = {
    "as it is": ("lstm.weight_ih_l0", FORWARD.decode()),
    "transposed": ("lstm.weight_ih_l0", FORWARD.decode().T),
    "gates reordered": ("lstm.weight_ih_l0", FORWARD.decode()[GATES]),
    "two directions": ("lstm.weight_ih_l0", np.stack([FORWARD.decode()[GATES], BACKWARD.decode()[GATES]])),
    "reshaped under a short name": ("b", FORWARD.decode().reshape(2, 4, 3)),
    "rows of both mixed": ("lstm.joined", np.concatenate([BACKWARD.decode()[2:4], FORWARD.decode()[:5]])),
}


@pytest.mark.parametrize("arrangement", ARRANGED)
def test_codes_are_moved_instead_of_numbers(arrangement: str) -> None:
    name, content = ARRANGED[arrangement]
    model = graph_of(name, content)
    stored = store_encoded(model, {"lstm.weight_ih_l0": FORWARD, "lstm.weight_ih_l0_reverse": BACKWARD})
    assert not any(t.data_type == TensorProto.FLOAT and len(t.dims) > 2 for t in stored.graph.initializer)
    assert name not in {tensor.name for tensor in stored.graph.initializer}
    onnx.checker.check_model(stored)
    result = OnnxRuntime().load_model(stored, 1).run([np.zeros(1, dtype=np.float32)])[0]
    np.testing.assert_array_equal(result, content)


def test_other_weights_stay_floats() -> None:
    model = graph_of("conv.weight", np.ones((8, 3), dtype=np.float32))
    assert store_encoded(model, {"lstm.weight_ih_l0": FORWARD}) is model


def test_a_weight_that_changed_afterwards_is_refused() -> None:
    model = graph_of("lstm.weight_ih_l0", FORWARD.decode() * 1.01)
    with pytest.raises(ParityError, match=r"lstm.weight_ih_l0: its values are not those of its encoding"):
        store_encoded(model, {"lstm.weight_ih_l0": FORWARD})


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    """The embedding's table is the output layer's weight, transposed."""
    model = to_modules(exported("tied_weights"))
    table = model.get_parameter("embedding.weight")
    encoding: Encoding = codes(0, *table.shape)
    table.data = torch.from_numpy(encoding.decode())
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter is table:
            state_of(model).encodings[name] = encoding
    assert len(state_of(model).encodings) == 2
    built = build_artifact(model, example_inputs("tied_weights"))
    assert sum(node.op_type == "unpack3" for node in built.graph.node) == 1
    path = tmp_path / "model.onnx"
    path.write_bytes(serialize(built))
    inputs = example_inputs("tied_weights")
    result = OnnxRuntime().load(path, 1).run([tensor.numpy() for tensor in inputs])[0]
    with torch.no_grad():
        np.testing.assert_allclose(result, model(*inputs).numpy(), atol=1e-5)

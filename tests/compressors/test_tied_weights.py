"""Weights that a model ties are in the file once, and cost no time when it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from benchmarks.families import FAMILIES, exported
from compressors.artifact import build_artifact
from compressors.onnx_export import check_parity, export_onnx, serialize
from compressors.onnx_runtime import OnnxRuntime, kernel_summary
from compressors.programs import to_modules
from compressors.recipe import DynamicQuantization
from compressors.state import state_of
from compressors.tied_weights import store_once
from tests.models import export


def test_an_output_layer_is_its_embedding_transposed(tmp_path: Path) -> None:
    family = FAMILIES["gpt"]
    module = to_modules(exported("gpt"))
    model = export_onnx(module, family.inputs(2))
    content = serialize(model)
    tied = module.get_parameter("words.weight").numel()
    assert len(model.SerializeToString()) - len(content) > 4 * tied - 100
    assert len(content) < 4 * sum(p.numel() for p in module.parameters()) + 16_000
    path = tmp_path / "gpt.onnx"
    path.write_bytes(content)
    onnx.checker.check_model(str(path))
    check_parity(module, OnnxRuntime().load(path, 1), family.inputs(3, seed=1), tolerance=1e-5)
    (tmp_path / "plain.onnx").write_bytes(model.SerializeToString())
    assert kernel_summary(path) == kernel_summary(tmp_path / "plain.onnx")


def test_integer_weights_are_shared_too() -> None:
    module = to_modules(exported("gpt"))
    state_of(module).activations = DynamicQuantization()
    model = build_artifact(module, FAMILIES["gpt"].inputs(2))
    inputs = [tensor.numpy() for tensor in FAMILIES["gpt"].inputs(3, seed=1)]
    before, after = (OnnxRuntime().load_model(m, 1).run(inputs)[0] for m in (model, store_once(model)))
    assert np.array_equal(before, after)


class Twins(nn.Module):
    """Equal weights at two places, a symmetric one, and small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.load_state_dict(self.first.state_dict())
        self.symmetric = nn.Linear(16, 16, bias=False)
        self.symmetric.weight.data = self.first.weight.data + self.first.weight.data.t()
        self.small = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.small(self.symmetric(self.second(torch.relu(self.first(x)))))
        return out


def test_equal_weights_are_one() -> None:
    torch.manual_seed(0)
    module = to_modules(export(Twins().eval(), (torch.randn(2, 16),)))
    model = export_onnx(module, (torch.randn(2, 16),))
    smaller = store_once(model)
    names = {tensor.name for tensor in smaller.graph.initializer}
    assert {"first.weight", "symmetric.weight", "small.weight"} <= names
    assert "second.weight" not in names
    assert not any(node.op_type == "Transpose" for node in smaller.graph.node)
    check_parity(module, OnnxRuntime().load_model(smaller, 1), (torch.randn(5, 16),), tolerance=1e-6)


def test_a_model_without_equal_weights_is_returned_itself() -> None:
    model = export_onnx(to_modules(exported("lenet")), FAMILIES["lenet"].inputs(2))
    before = model.SerializeToString()
    assert store_once(model) is model
    assert model.SerializeToString() == before

"""Every family of networks comes in as modules, goes out as ONNX, and gives the same numbers."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from benchmarks.families import FAMILIES, Family, export_pt2, exported
from compressors.archive import check_archive
from compressors.onnx_export import export_onnx
from compressors.onnx_runtime import OnnxRuntime
from compressors.programs import describe as describe_program
from compressors.programs import load_program, relative_error, to_modules
from compressors.tasks import describe

EXACT = 1e-5


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_modules_and_file_equal_the_original_at_another_batch_size(family: Family) -> None:
    """The file is traced with two rows and answers five, and one."""
    module = to_modules(exported(family.name))
    exported_model = export_onnx(module, family.inputs(batch=2))
    onnx.checker.check_model(exported_model)
    session = OnnxRuntime().load_model(exported_model, 1)
    for rows in (5, 1):
        inputs = family.inputs(batch=rows, seed=3)
        with torch.no_grad():
            expected = family.build()(*inputs)
            assert relative_error(module(*inputs), expected) <= EXACT
        (answer,) = session.run([tensor.numpy() for tensor in inputs])
        assert relative_error(torch.from_numpy(answer), expected) <= EXACT


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_networks_are_what_their_family_says(family: Family) -> None:
    model = family.build()
    inputs = family.inputs(batch=7, seed=3)
    with torch.no_grad():
        output = model(*inputs)
    assert {"scores": 2, "sequence": 3, "map": 4, "scalar": 1}[family.output] == output.dim()
    assert output.shape[0] == 7
    assert 5_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 150_000
    assert float(output.std(0).mean()) > 0.02 * float(output.abs().mean()), "the result hardly depends on the input"
    with torch.no_grad():
        assert torch.equal(family.build()(*family.inputs(batch=7, seed=3)), output)
        assert not torch.equal(family.build(seed=1)(*inputs), output)
    for norm in (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        assert norm.momentum == 0.1
        assert norm.running_var is not None
        assert math.isfinite(float(norm.running_var.sum()))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_networks_serve_their_task(family: Family) -> None:
    program = exported(family.name)
    (output,) = describe_program(program, to_modules(program)).outputs
    assert not list(describe(family.task).output_problems(output))


@pytest.mark.parametrize("name", ["resnet_a", "lstm", "bert", "gpt", "dlrm"])
def test_files_pass_the_gate_and_load(name: str, tmp_path: Path) -> None:
    path = export_pt2(name, tmp_path / "model.pt2")
    check_archive(path)
    program = load_program(path)
    assert program.description.batch_is_dynamic
    assert program.description.parameters == sum(p.numel() for p in FAMILIES[name].build().parameters())

"""`bantam pack` and `bantam unpack` on a file of a small network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from onnx import numpy_helper
from typer.testing import CliRunner, Result

from compressors.artifact import build_artifact
from compressors.onnx_export import serialize
from compressors.programs import to_modules
from service.cli import app
from tests.models import example_inputs, exported


def bantam(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "net.onnx"
    path.write_bytes(serialize(build_artifact(to_modules(exported("plain_cnn")), example_inputs("plain_cnn"))))
    return path


def test_there_and_back(model: Path, tmp_path: Path) -> None:
    assert bantam("pack", model).exit_code == 0
    packed = model.with_suffix(".bantam")
    assert packed.stat().st_size < 0.95 * model.stat().st_size
    assert bantam("unpack", packed, "-o", tmp_path / "back.onnx").exit_code == 0
    assert (tmp_path / "back.onnx").read_bytes() == model.read_bytes()


def test_safetensors_hold_the_weights(model: Path, tmp_path: Path) -> None:
    bantam("pack", model, "-o", tmp_path / "n.bantam")
    assert bantam("unpack", tmp_path / "n.bantam", "-o", tmp_path / "n.safetensors").exit_code == 0
    artifact = build_artifact(to_modules(exported("plain_cnn")), example_inputs("plain_cnn"))
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in artifact.graph.initializer}
    read = safetensors.numpy.load_file(tmp_path / "n.safetensors")
    assert {"conv1.weight", "fc2.bias"} <= read.keys() <= weights.keys()
    for name, array in read.items():
        np.testing.assert_array_equal(array, weights[name])


def test_sizes_are_told(model: Path, tmp_path: Path) -> None:
    done = bantam("pack", model, "-o", tmp_path / "n.bantam", "--json")
    told = json.loads(done.stdout)
    assert told["onnx_bytes"] == model.stat().st_size
    assert told["packed_bytes"] == (tmp_path / "n.bantam").stat().st_size < told["zip_bytes"]
    assert told["tensors"]["fc1.weight"]["packed_bytes"] < told["tensors"]["fc1.weight"]["onnx_bytes"] == 7680
    shown = bantam("pack", model, "-o", tmp_path / "n.bantam").stdout
    for word in ("onnx", "zip", "bantam", "fc1.weight", f"{told['packed_bytes']:,}"):
        assert word in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pack", "nowhere.onnx"), "nowhere.onnx: No such file"),
        (("pack", "text.onnx"), "text.onnx: cannot be packed: .*this is no ONNX file"),
        (("unpack", "text.onnx"), "text.onnx: this is no .bantam file"),
        (("unpack", "text.onnx", "-o", "w.pt"), "--output w.pt: must end in .onnx or .safetensors"),
    ],
)
def test_wrong_files_are_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.onnx").write_text("no model")
    done = bantam(*arguments)
    assert done.exit_code == 2
    assert re.search(message, done.stderr)

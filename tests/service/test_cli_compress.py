"""`bantam compress`: the command's own checks, and the process behind it on a small network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from typer.testing import CliRunner

from service.cli import app
from service.compress import main
from tests.models import build, export_pt2

ROWS = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("compress")
    model = build("mlp")
    export_pt2(model, place / "net.pt2", (torch.rand(2, 5),))
    x = np.random.default_rng(0).random((ROWS, 5), dtype=np.float32)
    with torch.no_grad():
        label = model(torch.from_numpy(x)).argmax(1).numpy()
    np.savez(place / "rows.npz", x=x, label=label)
    return place


def recipe(folder: Path, *steps: dict[str, Any]) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "steps": list(steps)}))
    return path


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.cli", "compress", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_a_recipe_is_applied_written_and_compared(folder: Path) -> None:
    steps = recipe(
        folder,
        {"technique": "structured_pruning", "keep": {"fc1": 6}},
        {"technique": "distillation", "samples": 256},
        {"technique": "quantization"},
    )
    output = folder / "out" / "small.onnx"
    done = command(
        folder, str(folder / "net.pt2"), "--recipe", str(steps), "--train", str(folder / "rows.npz"), "--input", "x",
        "--target", "label", "--output", str(output), "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["result"]["size_bytes"] == output.stat().st_size
    assert found["result"]["parameters"] < found["baseline"]["parameters"]
    assert found["baseline"]["metric"] == 1.0  # the labels are its own answers
    assert 0.3 < found["result"]["metric"] <= 1.0
    assert found["metric_name"] == "top-1 accuracy"
    onnx.checker.check_model(str(output))


def request(folder: Path, steps: list[dict[str, Any]], **change: Any) -> str:
    document = {
        "model": str(folder / "net.pt2"),
        "recipe": {"version": 1, "steps": steps},
        "output": str(folder / "x.onnx"),
        "models": {},
        "seed": 0,
        "threads": 1,
        "json": False,
        "datasets": {},
        "spec": None,
    }
    return json.dumps({**document, **change})


def test_without_data_size_and_speed_are_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(request(folder, [{"technique": "structured_pruning", "keep": {"fc1": 3}}])) == 0
    said = capsys.readouterr().out
    assert "latency" in said
    assert "accuracy" not in said


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"technique": "quantization"}], "quantization reads data and none are given"),
        (
            [{"technique": "structured_pruning", "keep": {"fc9": 3}}],
            "step 1 (structured_pruning): structured_pruning.keep['fc9']: no such group; near it are",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    folder: Path, steps: list[dict[str, Any]], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(request(folder, steps)) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_a_wrong_column_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"data": {"train": "train", "inputs": ["y"], "target": "label"}}
    asked = request(folder, [{"technique": "quantization"}], spec=spec, datasets={"train": str(folder / "rows.npz")})
    assert main(asked) == 2
    assert "data.inputs[0]: column 'y' is not in the train data" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train", "nowhere.npz", "--input", "x", "--target", "label"], "no such file"),
        (["--input", "x"], "--input without --train"),
        (["--model", "teacher"], "must be NAME=FILE.pt2"),
    ],
)
def test_the_command_checks_its_options(folder: Path, arguments: list[str], message: str) -> None:
    steps = recipe(folder, {"technique": "quantization"})
    done = CliRunner().invoke(app, ["compress", str(folder / "net.pt2"), "--recipe", str(steps), *arguments])
    assert done.exit_code == 2
    assert message in done.stderr.replace("\n", " ")


def test_a_recipe_that_cannot_be_read_is_refused_by_name(folder: Path) -> None:
    steps = recipe(folder, {"technique": "quantisation"})
    done = CliRunner().invoke(app, ["compress", str(folder / "net.pt2"), "--recipe", str(steps)])
    assert done.exit_code == 2
    assert "did you mean 'quantization'" in done.stderr

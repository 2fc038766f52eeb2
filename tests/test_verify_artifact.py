"""The stand-alone check of an artifact: exact accuracy, a sane ratio, and none of Bantam's code."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SCRIPT = Path(__file__).parents[1] / "examples" / "verify_artifact.py"


def brightness_model(path: Path, work: int) -> None:
    """Class 1 if the mean of an image is above 0.5, else class 0. work: how many 64x64 products it wastes first."""
    weights = {
        "scale": np.full((3, 2), [-1 / 3, 1 / 3], np.float32),
        "offset": np.array([0.5, -0.5], np.float32),
        "busy": np.eye(64, dtype=np.float32),
    }
    nodes = [helper.make_node("Identity", ["image"], ["x0"])]
    nodes += [helper.make_node("MatMul", [f"x{i}", "busy"], [f"x{i + 1}"]) for i in range(work)]
    nodes += [
        helper.make_node("GlobalAveragePool", [f"x{work}"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "scale", "offset"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 64, 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (level, level, level)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_it_prints_exact_accuracy_and_a_ratio_below_one(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, 300)
    labels = (levels > 127).astype(np.int64)
    labels[:30] = 1 - labels[:30]  # 30 of 300 are wrong on purpose
    pq.write_table(pa.table({"picture": [png(int(v)) for v in levels], "kind": labels}), tmp_path / "test.parquet")
    brightness_model(tmp_path / "winner.onnx", work=0)
    brightness_model(tmp_path / "baseline.onnx", work=60)
    options = ["--image-column", "picture", "--label-column", "kind", "--rounds", "5"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "winner.onnx", "baseline.onnx", "test.parquet", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"winner +top-1 0\.900000 on 300 rows", done.stdout)
    assert re.search(r"baseline +top-1 0\.900000 on 300 rows", done.stdout)
    found = re.search(r"ratio +([\d.]+), 95 % interval ([\d.]+) to ([\d.]+)", done.stdout)
    assert found is not None
    ratio, low, high = map(float, found.groups())
    assert low <= ratio <= high < 0.5


def test_it_imports_nothing_of_bantam() -> None:
    tree = ast.parse(SCRIPT.read_text())
    modules = {name.name for n in ast.walk(tree) if isinstance(n, ast.Import) for name in n.names}
    modules |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    outside = {m.partition(".")[0] for m in modules} - sys.stdlib_module_names
    assert outside == {"numpy", "onnxruntime", "pyarrow", "PIL"}

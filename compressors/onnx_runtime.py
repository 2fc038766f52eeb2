"""ONNX Runtime on the CPU as a target."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from compressors.errors import InvalidData, UnsupportedModel
from compressors.runtime import Array

_PROVIDERS = ["CPUExecutionProvider"]
# What onnxruntime raises has no common root, and its type errors are plain ones.
_REFUSALS = (
    _state.Fail,
    _state.InvalidArgument,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.NoSuchFile,
    _state.NotImplemented,
    _state.RuntimeException,
    TypeError,
    ValueError,
)


class OnnxRuntimeSession:
    """One InferenceSession with its input and output names at hand."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._inputs: list[str] = [item.name for item in session.get_inputs()]
        self._outputs: list[str] = [item.name for item in session.get_outputs()]

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(self._outputs)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        if len(inputs) != len(self._inputs):
            raise InvalidData(f"{len(inputs)} arrays given: the artifact has the inputs {self._inputs}")
        try:
            produced: list[Array] = self._session.run(self._outputs, dict(zip(self._inputs, inputs, strict=True)))
        except _REFUSALS as error:
            given = [f"{array.dtype}{list(array.shape)}" for array in inputs]
            raise InvalidData(f"inputs {given} do not fit the artifact: {error}") from error
        return produced


class OnnxRuntime:
    """Implements `Runtime`. All graph optimisations, sequential execution."""

    name = "onnxruntime"
    version: str = ort.__version__

    def load(self, path: Path, threads: int) -> OnnxRuntimeSession:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such artifact")
        return _open(str(path), threads)

    def load_model(self, model: onnx.ModelProto, threads: int) -> OnnxRuntimeSession:
        """Like `load`, from memory; for calibration and for checks before a file exists."""
        return _open(model.SerializeToString(), threads)


def kernel_summary(path: Path) -> Counter[str]:
    """How often each operator stands in the graph that ONNX Runtime really executes, after all its fusions."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = session_options(1)
        options.optimized_model_filepath = str(optimized)
        ort.InferenceSession(str(path), options, providers=_PROVIDERS)
        graph = onnx.load(str(optimized)).graph
    return Counter(node.op_type for node in graph.node)


def session_options(threads: int) -> ort.SessionOptions:
    """threads: size of the pool inside operators, >= 1. Raises ValueError below that."""
    if threads < 1:
        raise ValueError(f"threads={threads}: must be at least 1")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Within a run, waiting threads spin, as in deployment (ResNet-20, two threads: 0.53 ms, asleep 0.95 ms); after
    # it they must not, or they would take the core from whatever is measured next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4
    return options


def _open(source: str | bytes, threads: int) -> OnnxRuntimeSession:
    options = session_options(threads)
    try:
        return OnnxRuntimeSession(ort.InferenceSession(source, options, providers=_PROVIDERS))
    except _REFUSALS as error:
        raise UnsupportedModel(f"ONNX Runtime {ort.__version__} refuses the artifact: {error}") from error

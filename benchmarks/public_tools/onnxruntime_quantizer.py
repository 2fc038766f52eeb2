"""ONNX Runtime's own quantisers on the same float export and the same calibration rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
from onnxruntime.quantization import quantize_dynamic as ort_quantize_dynamic
from onnxruntime.quantization import quantize_static as ort_quantize_static

from compressors.runtime import Array


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, batches: Sequence[tuple[Array, ...]]) -> None:
        self._rows: Iterator[dict[str, Array]] = iter([{name: batch[0]} for batch in batches])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._rows, None)


def quantize_static(model: onnx.ModelProto, batches: Sequence[tuple[Array, ...]], *, bits: int = 8) -> onnx.ModelProto:
    """Integer operators, weights per channel, min-max ranges: what gave the smallest and fastest files here."""
    assert bits == 8  # it stores 4-bit weights of linear layers alone
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(source))
        ort_quantize_static(
            str(source),
            str(result),
            _Reader(model.graph.input[0].name, batches),
            quant_format=QuantFormat.QOperator,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return onnx.load(str(result))


def quantize_dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(source))
        ort_quantize_dynamic(str(source), str(result), weight_type=QuantType.QUInt8)
        return onnx.load(str(result))

"""From a compressed model to the graph that its file holds: export, integers, encodings, zeros, in that order."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from torch import Tensor, fx

from compressors.calibration import placeholder_ranges
from compressors.dynamic_quantization import quantize_dynamically
from compressors.encoding_pass import store_encoded
from compressors.native_products import use_native_products
from compressors.onnx_export import export_onnx
from compressors.onnx_graph import layer_of
from compressors.recipe import DynamicQuantization
from compressors.sparse_pass import store_sparse
from compressors.state import state_of
from compressors.static_quantization import quantize_onnx


def build_artifact(model: fx.GraphModule, example_inputs: Sequence[Tensor]) -> onnx.ModelProto:
    """What `model` and its state say, as ONNX. Raises UnsupportedModel for operators that cannot be exported."""
    state = state_of(model)
    exported = export_onnx(model, example_inputs)
    if state.activations is None:
        return store_sparse(
            store_encoded(use_native_products(exported, state.encodings, state.native), state.encodings)
        )
    if isinstance(state.activations, DynamicQuantization):
        quantized = quantize_dynamically(exported, state.activations, state.encodings)
    else:
        ranges = state.activations.ranges
        ranges = placeholder_ranges(exported) if ranges is None else ranges
        quantized = quantize_onnx(exported, state.activations.config, ranges, state.encodings)
    floats = {tensor.name for tensor in quantized.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    replaced = {layer_of(tensor.name) for tensor in exported.graph.initializer if tensor.name not in floats}
    encodings = {name: encoding for name, encoding in state.encodings.items() if layer_of(name) not in replaced}
    return store_sparse(store_encoded(quantized, encodings))

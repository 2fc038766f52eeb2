"""Stores the zeros of pruned weights in fewer bytes: the very last pass before a file is written."""

from __future__ import annotations

import onnx
from onnx import TensorProto, numpy_helper

from compressors.encodings.sparse import SparseLayout, sparse_layout
from compressors.onnx_emission import Emission

_BITS = {TensorProto.FLOAT: 32, TensorProto.INT8: 8, TensorProto.FLOAT16: 16}


def store_sparse(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model that computes the same and stores initialisers with many zeros sparsely, where that is smaller.

    Works on what is there, whoever made the zeros: float32 and float16 weights, and int8 weights of integer kernels.
    A decoded tensor keeps the initialiser's name. `model` is left untouched, and returned itself if nothing shrinks.
    """
    layouts: dict[str, SparseLayout] = {}
    for tensor in model.graph.initializer:
        bits = _BITS.get(tensor.data_type)
        found = None if bits is None else sparse_layout(numpy_helper.to_array(tensor), bits, 0)
        if found is not None:
            layouts[tensor.name] = found
    if not layouts:
        return model
    emission = Emission()
    for node in model.graph.node:
        for name in (*node.input, *node.output):
            emission.reserve(name)
    emission.functions.update({function.name: function for function in model.functions})
    for tensor in model.graph.initializer:
        if tensor.name in layouts:
            layout = layouts[tensor.name]
            layout.emit(emission, emission.constant(layout.values))
            emission.nodes[-1].output[0] = tensor.name
        else:
            emission.initializers[emission.reserve(tensor.name)] = tensor
    emission.nodes.extend(model.graph.node)
    sparse = emission.finish(emission.nodes, list(model.graph.input), list(model.graph.output))
    return sparse if sparse.ByteSize() < model.ByteSize() else model

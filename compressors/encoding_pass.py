"""Replaces the float weights of an exported graph by their encodings: the last pass before a file is written."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from compressors.encodings import Encoding
from compressors.errors import ParityError
from compressors.onnx_emission import Emission


def store_encoded(model: onnx.ModelProto, encodings: Mapping[str, Encoding]) -> onnx.ModelProto:
    """A model that computes the same and stores each encoded weight as codes. `model` is left untouched.

    An initialiser is recognised by its name, the parameter's, in the parameter's layout or transposed (as matrix
    products of rank 3 want it). Weights that other passes have turned into integers already are left to them.
    Raises ParityError if a float initialiser of that name holds other values: the model changed after it was encoded.
    """
    wanted = {
        tensor.name: encodings[tensor.name]
        for tensor in model.graph.initializer
        if tensor.name in encodings and tensor.data_type == onnx.TensorProto.FLOAT
    }
    if not wanted:
        return model
    emission = Emission()
    for node in model.graph.node:
        for name in (*node.input, *node.output):
            emission.reserve(name)
    renamed: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if tensor.name not in wanted:
            emission.initializers[emission.reserve(tensor.name)] = tensor
            continue
        stored, encoding = numpy_helper.to_array(tensor), wanted[tensor.name]
        decoded = encoding.decode()
        if stored.shape == decoded.shape and np.array_equal(stored, decoded):
            renamed[tensor.name] = encoding.emit(emission)
        elif stored.ndim == 2 and np.array_equal(stored, decoded.T):
            renamed[tensor.name] = emission.add("Transpose", encoding.emit(emission))
        else:
            raise ParityError(
                f"{tensor.name}: its values are not those of its encoding; encode weights after everything else",
                max_error=float("inf"),
            )
    for node in model.graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        del copied.input[:]
        copied.input.extend(renamed.get(name, name) for name in node.input)
        emission.nodes.append(copied)
    return emission.finish(emission.nodes, list(model.graph.input), list(model.graph.output))

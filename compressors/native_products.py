"""Linear layers that multiply with packed integer weights directly, by ONNX Runtime's kernel MatMulNBits.

The kernel keeps the weight packed in memory and rounds the other side to int8 per block (accuracy_level 4), which costs
about half a percent of a layer's largest output. A rough look on one busy core, 768 to 3072 features, blocks of 32, one
row: 0.28, 0.40 and 0.45 of the time of float32 for 4, 8 and 2 bits; 16 rows: 0.93, 0.75 and 1.8. Without that rounding
(accuracy_level 0) 2 and 8 bits took 60 times longer than float32, so it is not offered.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from compressors.encodings.bits import pack
from compressors.encodings.encoding import Encoding
from compressors.encodings.integers import IntegerCodes
from compressors.encodings.scales import emit_scale
from compressors.onnx_emission import MICROSOFT, Array, Emission
from compressors.onnx_graph import attributes

BITS = (2, 4, 8)
BLOCKS = (16, 32, 64, 128, 256)
_INT8_INPUTS = 4


def fits(encoding: Encoding) -> bool:
    """Whether the kernel can multiply with the codes: 2, 4 or 8 bits in whole blocks along the rows of a matrix."""
    return (
        isinstance(encoding, IntegerCodes)
        and encoding.bits in BITS
        and len(encoding.shape) == 2
        and encoding.blocks is not None
        and encoding.blocks[2] in BLOCKS
        and encoding.blocks[1] * encoding.blocks[2] == encoding.shape[1]
        and encoding.zero_point.dtype == np.uint8
    )


def use_native_products(
    model: onnx.ModelProto, encodings: Mapping[str, Encoding], wanted: Container[str]
) -> onnx.ModelProto:
    """A model in which the products with the weights `wanted` (names of parameters) read packed codes; those whose
    encoding does not fit stay as they are. `model` is left untouched."""
    emission = Emission()
    for tensor in model.graph.initializer:
        emission.initializers[emission.reserve(tensor.name)] = tensor
    for node in model.graph.node:
        for name in (*node.input, *node.output):
            emission.reserve(name)
    changed = False
    for node in model.graph.node:
        encoding = encodings.get(node.input[1]) if len(node.input) > 1 and node.input[1] in wanted else None
        if isinstance(encoding, IntegerCodes) and fits(encoding) and _is_product(node):
            emission.nodes.append(_product(emission, node, encoding))
            changed = True
        else:
            emission.nodes.append(node)
    return emission.finish(emission.nodes, list(model.graph.input), list(model.graph.output)) if changed else model


def _is_product(node: onnx.NodeProto) -> bool:
    """x @ weight.T, with the weight in the parameter's layout (Gemm) or written transposed (MatMul)."""
    settings = attributes(node)
    if node.op_type == "Gemm":
        return settings.get("transB", 0) == 1 and set(settings) <= {"transB"}
    return bool(node.op_type == "MatMul")


def _product(emission: Emission, node: onnx.NodeProto, encoding: IntegerCodes) -> onnx.NodeProto:
    assert encoding.blocks is not None
    rows, columns = encoding.shape
    _, groups, length = encoding.blocks
    packed = pack(encoding.codes, encoding.bits).reshape(rows, groups, -1)
    scale = emission.add("Cast", emit_scale(emission, encoding.scale.reshape(-1)), to=TensorProto.FLOAT)
    zeros = "" if encoding.is_symmetric else emission.constant(_packed_rows(encoding))
    bias = node.input[2] if len(node.input) > 2 else ""
    inputs = [node.input[0], emission.constant(packed), scale, zeros, "", bias]
    while not inputs[-1]:
        inputs.pop()
    settings: dict[str, Any] = {
        "K": columns,
        "N": rows,
        "bits": encoding.bits,
        "block_size": length,
        "accuracy_level": _INT8_INPUTS,
    }
    return onnx.helper.make_node("MatMulNBits", inputs, list(node.output), domain=MICROSOFT, **settings)


def _packed_rows(encoding: IntegerCodes) -> Array:
    """Zero points, packed like codes, each row from a byte of its own on; uint8 (rows * bytes per row,)."""
    assert encoding.blocks is not None
    rows, groups, _ = encoding.blocks
    spread = np.broadcast_to(encoding.zero_point, (rows, groups, 1))[:, :, 0]
    per_byte = 8 // encoding.bits
    return pack(np.pad(spread, [(0, 0), (0, -groups % per_byte)]), encoding.bits).reshape(-1)

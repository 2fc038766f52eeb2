"""Stores equal weights once: what a model ties (an output layer to its embedding) would stand in the file twice.

An exporter lays a linear layer's weight out for the kernel that it calls, so that the output layer holds the transpose
of the embedding. One of the two becomes a Transpose, which runtimes fold into a constant when they load the file: the
file shrinks, the speed stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compressors.onnx_emission import Array

# Below this a Transpose and its names save next to nothing.
WORTHWHILE_BYTES = 512
_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8)


def store_once(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model that computes the same, without initialisers that equal an earlier one or, of rank 2, its transpose.

    `model` is left untouched, and returned itself if all its weights differ.
    """
    kept: dict[tuple[object, ...], list[tuple[str, Array]]] = {}
    same: dict[str, str] = {}
    transposes: dict[str, str] = {}
    for tensor in model.graph.initializer:
        content = numpy_helper.to_array(tensor) if tensor.data_type in _TYPES else None
        if content is None or content.nbytes < WORTHWHILE_BYTES:
            continue
        # Corners first: nearly all weights differ there, and few pairs are compared in full.
        equal = next((name for name, other in kept.get(_key(content), ()) if np.array_equal(other, content)), None)
        flipped = None
        if equal is None and content.ndim == 2:
            others = kept.get(_key(content.T), ())
            flipped = next((name for name, other in others if np.array_equal(other, content.T)), None)
        if equal is not None:
            same[tensor.name] = equal
        elif flipped is not None:
            transposes[tensor.name] = flipped
        else:
            kept.setdefault(_key(content), []).append((tensor.name, content))
    return _rewritten(model, same, transposes) if same or transposes else model


def _key(content: Array) -> tuple[object, ...]:
    corners = content[tuple(np.ix_(*([0, -1] for _ in range(content.ndim))))] if content.ndim else content
    return content.dtype.str, content.shape, corners.tobytes()


def _rewritten(model: onnx.ModelProto, same: dict[str, str], transposes: dict[str, str]) -> onnx.ModelProto:
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    graph = smaller.graph
    left = [tensor for tensor in graph.initializer if tensor.name not in same and tensor.name not in transposes]
    nodes = [helper.make_node("Transpose", [source], [name], perm=[1, 0]) for name, source in transposes.items()]
    for node in graph.node:
        inputs = [same.get(name, name) for name in node.input]
        del node.input[:]
        node.input.extend(inputs)
        nodes.append(node)
    _replace(graph.initializer, left)
    _replace(graph.node, nodes)
    return smaller


def _replace(repeated: object, items: Sequence[object]) -> None:
    copies = list(items)
    del repeated[:]  # type: ignore[attr-defined]
    repeated.extend(copies)  # type: ignore[attr-defined]

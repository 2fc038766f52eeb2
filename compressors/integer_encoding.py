"""Puts the weights of layers that become integers on their grids: values in the model, codes in its state."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import numpy as np
import onnx
from torch import fx, nn

from compressors.errors import InvalidRecipe
from compressors.integer_grids import GridSpec, WeightRange
from compressors.layer_weights import TRANSPOSED, LayerWeight, layer_weights
from compressors.onnx_emission import array_of
from compressors.onnx_graph import RECURRENT, GraphView, attributes, layer_of
from compressors.registry import Context
from compressors.state import state_of
from compressors.weight_encoding import Rounding, encode_on_grids

_STORED = (nn.Embedding, nn.EmbeddingBag, nn.GRU, nn.RNN, *TRANSPOSED)

GridOf = Callable[[str], GridSpec]  # layer -> grid of its weights


def check_float_activations(model: fx.GraphModule, technique: str) -> None:
    """Raises InvalidRecipe if an earlier step has made activations integers."""
    if state_of(model).activations is not None:
        raise InvalidRecipe(f"{technique}: activations are integers already; keep one of the two steps")


def encode_layers(
    model: fx.GraphModule,
    view: GraphView,
    nodes: Iterable[onnx.NodeProto],
    grid_of: GridOf,
    rounding: Rounding,
    context: Context,
    technique: str,
) -> None:
    """Encodes, in place, the weights of `nodes`: layers of `view`, which is the export of `model`.

    Weights that have codes already keep them, and tied parameters share theirs.
    """
    weights = [w for w in layer_weights(model) if w.name not in state_of(model).encodings]
    chosen: dict[str, tuple[LayerWeight, GridSpec]] = {}
    for node in nodes:
        name = str(node.input[1])
        layer = layer_of(name)
        for weight in weights:
            if node.op_type in RECURRENT and layer in weight.layers:
                chosen.setdefault(weight.name, (weight, grid_of(layer)))
            elif name in weight.names:
                placed = replace(weight, output_axis=_output_axis(view, node, weight))
                chosen.setdefault(weight.name, (placed, grid_of(layer)))
    encode_on_grids(model, list(chosen.values()), rounding, context, technique)


def encode_stored(
    model: fx.GraphModule, bits: int, span: WeightRange, left: Collection[str], context: Context, technique: str
) -> None:
    """Encodes, in place, the weights of layers that runtimes have no integer kernel for: embeddings, GRUs and plain
    RNNs, transposed convolutions. They are stored in `bits` bits and decoded when the file is loaded.

    bits: 0 leaves them in float32. left: layers that stay float32. A table that an integer layer shares is left to it.
    """
    if not bits:
        return
    modules = dict(model.named_modules())
    spec = GridSpec(bits=bits, range=span)
    chosen = [
        (weight, spec)
        for weight in layer_weights(model)
        if weight.name not in state_of(model).encodings
        and all(isinstance(modules.get(layer), _STORED) for layer in weight.layers)
        and not set(left) & set(weight.layers)
    ]
    encode_on_grids(model, chosen, Rounding(), context, technique)


def _output_axis(view: GraphView, node: onnx.NodeProto, weight: LayerWeight) -> int:
    """In the parameter's own layout; exporters transpose the weights of linear layers."""
    if node.op_type == "Conv" or attributes(node).get("transB", 0):
        return 0
    content = view.constant(str(node.input[1]))
    return 1 if content is not None and np.array_equal(content, array_of(weight.tensor)) else 0

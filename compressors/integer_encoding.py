"""Puts the weights of layers that become integers on their grids: values in the model, codes in its state."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import torch
from torch import fx, nn

from compressors.errors import InvalidRecipe
from compressors.integer_weights import Nearest
from compressors.onnx_emission import array_of
from compressors.onnx_graph import RECURRENT, GraphView, attributes, layer_of
from compressors.state import state_of


def check_float_activations(model: fx.GraphModule, technique: str) -> None:
    """Raises InvalidRecipe if an earlier step has made activations integers."""
    if state_of(model).activations is not None:
        raise InvalidRecipe(f"{technique}: activations are integers already; keep one of the two steps")


def encode_layers(model: fx.GraphModule, view: GraphView, nodes: Iterable[onnx.NodeProto], nearest: Nearest) -> None:
    """Encodes, in place, the weights of `nodes`: layers of `view`, which is the export of `model`.

    Weights that have codes already keep them, and tied parameters share theirs. nearest: (layer, weights in the
    parameter's layout, axis of the output channels) to codes.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for node in nodes:
        name = str(node.input[1])
        if node.op_type in RECURRENT:
            for other in parameters:
                if other.startswith(f"{layer_of(name)}.weight_"):
                    _encode(model, other, 0, nearest)
        elif name in parameters:
            _encode(model, name, _output_axis(view, node, parameters[name]), nearest)


def encode_embeddings(model: fx.GraphModule, nearest: Nearest) -> None:
    """Encodes the tables of all embeddings, in place."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            _encode(model, f"{name}.weight", 0, nearest)


def _output_axis(view: GraphView, node: onnx.NodeProto, parameter: torch.Tensor) -> int:
    """In the parameter's own layout; exporters transpose the weights of linear layers."""
    if node.op_type == "Conv" or attributes(node).get("transB", 0):
        return 0
    content = view.constant(str(node.input[1]))
    return 1 if content is not None and np.array_equal(content, array_of(parameter)) else 0


@torch.no_grad()
def _encode(model: fx.GraphModule, name: str, axis: int, nearest: Nearest) -> None:
    state = state_of(model)
    if name in state.encodings:
        return
    parameter = model.get_parameter(name)
    codes = nearest(layer_of(name), array_of(parameter), axis)
    parameter.copy_(torch.from_numpy(codes.decode()))
    for other, shared in model.named_parameters(remove_duplicate=False):
        if shared is parameter:
            state.encodings[other] = codes

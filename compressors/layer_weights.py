"""The weights of a model: which tensors number formats and masks apply to, and by which names they are addressed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, fx, nn

from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.module_tree import get_tensor

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase)


@dataclass(frozen=True)
class LayerWeight:
    """One weight. layers: names of the layers that use it (a raw parameter's own name if no layer does). names: all of
    the parameter's names, several where layers share it. output_axis: of its output channels."""

    layers: tuple[str, ...]
    names: tuple[str, ...]
    tensor: Tensor
    output_axis: int

    @property
    def name(self) -> str:
        return self.names[0]


def layer_weights(model: fx.GraphModule) -> list[LayerWeight]:
    """Weights of all layers that the graph calls (convolutions, linear layers, embeddings, recurrent layers), and raw
    parameters of rank 2 and more that it reads, in order of first use. Biases and norms are not among them."""
    places: dict[int, tuple[list[str], list[str], Tensor, int]] = {}

    def note(layer: str, name: str, tensor: Tensor, axis: int) -> None:
        layers, names, _, _ = places.setdefault(id(tensor), ([], [], tensor, axis))
        if layer not in layers:
            layers.append(layer)
        if name not in names:
            names.append(name)

    for node in model.graph.nodes:
        target = str(node.target)
        if node.op == "call_module":
            layer = model.get_submodule(target)
            if isinstance(layer, WEIGHTED):
                for name, parameter in layer.named_parameters():
                    if name.startswith("weight"):
                        note(target, f"{target}.{name}", parameter, 1 if isinstance(layer, TRANSPOSED) else 0)
        elif node.op == "get_attr":
            raw = get_tensor(model, target)
            if isinstance(raw, nn.Parameter) and raw.dim() >= 2:
                note(target, target, raw, 0)
    return [LayerWeight(tuple(layers), tuple(names), tensor, axis) for layers, names, tensor, axis in places.values()]


def selected_weights(model: fx.GraphModule, layers: Sequence[str], field: str) -> list[LayerWeight]:
    """Those of the named layers, or all if `layers` is empty. field: for messages, such as 'float_format.layers'.

    Raises InvalidRecipe for a layer that does not exist or has no weight, UnsupportedModel for a model without weights.
    """
    found = layer_weights(model)
    if not found:
        raise UnsupportedModel(f"{field}: the model has no weights: no convolution, linear, embedding, recurrent layer")
    known = [name for weight in found for name in weight.layers]
    for name in layers:
        check_known(field, name, known)
    return [weight for weight in found if not layers or set(weight.layers) & set(layers)]


def check_known(field: str, name: str, known: Iterable[str]) -> None:
    """Raises InvalidRecipe, with near matches, if `name` is none of the `known` layers."""
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names[:5]
        raise InvalidRecipe(f"{field}: {name!r} is no layer with weights; near are {near}")

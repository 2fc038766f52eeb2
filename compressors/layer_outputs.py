"""What a model's layers give while it runs, by their names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx, nn

from compressors.errors import InvalidRecipe
from compressors.layer_weights import CONVOLUTIONS, TRANSPOSED
from compressors.training import first_output

_POOLS = (
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
)
_CHANNELS_SECOND = (*CONVOLUTIONS, *TRANSPOSED, *_POOLS, nn.modules.batchnorm._NormBase, nn.GroupNorm)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.EmbeddingBag, nn.RNNBase)


@contextmanager
def captured(model: nn.Module, layers: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Collects the (first) output of each named layer while the model runs inside; rows are axis 0 of all.

    Gradients flow through what is collected. A layer that is called several times counts with its last call.
    """
    values: dict[str, Tensor] = {}
    handles = []
    try:
        for name in dict.fromkeys(layers):
            handles.append(model.get_submodule(name).register_forward_hook(_keep(name, values)))
        yield values
    finally:
        for handle in handles:
            handle.remove()


def _keep(name: str, values: dict[str, Tensor]) -> Callable[[nn.Module, Any, Any], None]:
    def keep(layer: nn.Module, inputs: Any, outputs: Any) -> None:
        found = first_output(outputs)
        time_first = isinstance(layer, nn.RNNBase) and not layer.batch_first
        values[name] = found.transpose(0, 1) if time_first else found

    return keep


def channel_axis(layer: nn.Module, output: Tensor) -> int:
    """Axis of an output that counts channels or units: 1 after convolutions, their norms and pools, else the last.

    A layer that has no channels of its own (dropout) is judged by its output: images have theirs second.
    """
    second = isinstance(layer, _CHANNELS_SECOND) or (not isinstance(layer, _CHANNELS_LAST) and output.dim() > 3)
    return 1 if second else output.dim() - 1


def check_layers(field: str, model: fx.GraphModule, whose: str, names: Iterable[str]) -> None:
    """Raises InvalidRecipe, with near matches, for a name that is no layer that the model calls."""
    known = list(dict.fromkeys(str(node.target) for node in model.graph.find_nodes(op="call_module")))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:5]
            raise InvalidRecipe(f"{field}: {name!r} is no layer of the {whose}; near it are {near}")

"""Shapes of every intermediate tensor of a model, read off one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.values[n] = _shape(result)
        return result


def _shape(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, (tuple, list)):
        return [_shape(item) for item in value]
    return value


def record_shapes(module: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> dict[fx.Node, Any]:
    """Shape (a tuple) per node that yields a tensor, list of shapes per node that yields several, value otherwise.

    Runs `module` once in evaluation mode, without gradients; its mode is as before afterwards.
    """
    training = module.training
    recorder = _Recorder(module)
    module.eval()
    try:
        with torch.no_grad():
            recorder.run(*inputs)
    finally:
        module.train(training)
    return recorder.values

"""The copy of a model that number formats work on: with batch norms folded as the export would fold them later."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from compressors.batch_norm import fold_batch_norm


class _Ranks(fx.Interpreter):
    """Notes results under meta["val"], as `fold_batch_norm` wants them for linear layers."""

    def run_node(self, n: fx.Node) -> Any:
        n.meta["val"] = super().run_node(n)
        return n.meta["val"]


def folded_copy(model: fx.GraphModule, example_inputs: Sequence[Tensor]) -> fx.GraphModule:
    """A copy in eval mode without the batch norms that `export_onnx` would fold; `model` is left untouched.

    A weight that is encoded must already be the one that the file holds, so folding comes first.
    """
    observed = copy.deepcopy(model).eval()
    with torch.no_grad():
        _Ranks(observed).run(*example_inputs)
    folded = fold_batch_norm(observed)
    for node in folded.graph.nodes:
        node.meta.pop("val", None)
    return folded

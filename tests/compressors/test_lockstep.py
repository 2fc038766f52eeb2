"""Models side by side: each layer is shown what it is given in each of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, fx

from compressors.lockstep import walk
from compressors.programs import to_modules
from tests.conformance.technique import rows
from tests.models import exported


def test_layers_see_what_changed_before_them() -> None:
    reference = to_modules(exported("option_a_resnet"))
    changed = copy.deepcopy(reference)
    batches = [(part,) for part in torch.split(rows("option_a_resnet", 6)[0], 4)]
    visited: dict[str, Sequence[Sequence[Tensor]]] = {}

    def visit(node: fx.Node, inputs: Sequence[Sequence[Tensor]]) -> None:
        visited[str(node.target)] = [[tensor.clone() for tensor in of_model] for of_model in inputs]
        if node.target == "layer1.conv1":
            changed.get_parameter("layer1.conv1.weight").data.mul_(2)

    walk((reference, changed), batches, visit)
    assert list(visited) == [str(n.target) for n in reference.graph.nodes if n.op == "call_module"]
    for model, index in ((reference, 0), (changed, 1)):
        seen: list[Tensor] = []
        layer = model.get_submodule("layer1.conv2")
        hook = layer.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            for batch in batches:
                model(*batch)
        hook.remove()
        for found, expected in zip(visited["layer1.conv2"][index], seen, strict=True):
            torch.testing.assert_close(found, expected)
    assert torch.equal(visited["layer1.conv1"][0][0], visited["layer1.conv1"][1][0])
    assert not torch.equal(visited["layer1.conv2"][0][0], visited["layer1.conv2"][1][0])

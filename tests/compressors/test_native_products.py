"""Products with packed weights: near the decoded ones, and only where the kernel can do them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressors.artifact import build_artifact
from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.onnx_export import serialize
from compressors.onnx_runtime import OnnxRuntime
from compressors.pipeline import run_recipe
from compressors.programs import to_modules
from compressors.recipe import Recipe, WeightOnlyQuantization
from compressors.registry import Context
from tests.models import export


class _Layers(nn.Module):
    """Rank 2 and rank 3, with and without bias; 24 features are no multiple of a block."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Linear(24, 64)
        self.wide = nn.Linear(64, 48, bias=False)
        self.mixed = nn.Linear(48, 32)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.mixed(torch.relu(self.wide(torch.relu(self.tokens(x)))))).mean(1))
        return out


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, ...]:
    return (torch.randn(6, 4, 24, generator=torch.Generator().manual_seed(1)),)


@pytest.fixture(scope="module")
def model(inputs: tuple[Tensor, ...]) -> torch.fx.GraphModule:
    torch.manual_seed(0)
    return to_modules(export(_Layers().eval(), inputs))


def products(nodes: Sequence[object]) -> int:
    return sum(getattr(node, "op_type", "") == "MatMulNBits" for node in nodes)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_results_are_near_those_of_decoded_weights(
    bits: int, scheme: str, model: torch.fx.GraphModule, inputs: tuple[Tensor, ...]
) -> None:
    context = Context(example_inputs=inputs)
    settings = {"bits": bits, "scheme": scheme, "group_size": 16}
    made, decoded = (
        run_recipe(model, Recipe((WeightOnlyQuantization(kernel=kernel, **settings),)), context)  # type: ignore[arg-type]
        for kernel in ("native", "decoded")
    )
    built = build_artifact(made, inputs)
    assert products(built.graph.node) == 3  # `tokens` has 24 columns and is decoded
    result = OnnxRuntime().load_model(built, 1).run([tensor.numpy() for tensor in inputs])[0]
    with torch.no_grad():
        expected = made(*inputs).numpy()
        np.testing.assert_array_equal(decoded(*inputs).numpy(), expected)
    assert float(np.abs(result - expected).max()) < 0.03 * float(np.abs(expected).max())
    assert len(serialize(built)) < len(serialize(build_artifact(decoded, inputs))) + 400


def test_wrong_use_is_refused_by_name(model: torch.fx.GraphModule, inputs: tuple[Tensor, ...]) -> None:
    with pytest.raises(InvalidRecipe, match=r"kernel='native': .*group_size 16, 32, 64, 128 or 256; use group_size=32"):
        WeightOnlyQuantization(kernel="native")
    with pytest.raises(InvalidRecipe, match=r"kernel='native': .* 2, 4 or 8 bits"):
        WeightOnlyQuantization(kernel="native", group_size=32, bits=3)
    recipe = Recipe((WeightOnlyQuantization(kernel="native", group_size=32, layers=("tokens",)),))
    with pytest.raises(UnsupportedModel, match=r"kernel='native': no linear layer .* multiple of group_size=32"):
        run_recipe(model, recipe, Context(example_inputs=inputs))

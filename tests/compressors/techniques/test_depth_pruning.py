"""Depth pruning as a step of a recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from benchmarks.families import FAMILIES
from benchmarks.families import exported as family_program
from compressors.artifact import build_artifact
from compressors.errors import InvalidRecipe, UnsupportedModel
from compressors.pipeline import run_recipe
from compressors.programs import relative_error, to_modules
from compressors.recipe import DepthPruning, Quantization, Recipe
from compressors.registry import Context, apply
from compressors.residual_blocks import Block, find_blocks, influences, without_blocks
from compressors.techniques.depth_pruning import choose_blocks
from tests.conformance.technique import Case, TechniqueConformance, context_for
from tests.models import build, example_inputs, export, exported

CASES = (
    Case("option_a_resnet", DepthPruning()),
    Case("bert", DepthPruning(blocks=("block1.norm1", "block2.norm2"))),
)


@pytest.mark.parametrize("case", CASES, ids=str)
class TestDepthPruning(TechniqueConformance):
    pass


class Zeroed(fx.Interpreter):
    """The model with the branches of some blocks multiplied by zero where they are added."""

    def __init__(self, model: fx.GraphModule, blocks: Collection[Block]) -> None:
        super().__init__(model)
        self._branches = {block.addition: 1 - block.side for block in blocks}

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        name = self._node.name
        if name in self._branches:
            args = tuple(0 * value if i == self._branches[name] else value for i, value in enumerate(args))
        return super().call_function(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        self._node = n
        return super().run_node(n)


RESIDUAL = {
    "resnet_a": 4,
    "preact_resnet": 4,
    "efficientnet": 3,
    "vit": 4,
    "bert": 4,
    "tagger": 4,
    "gpt": 4,
}


@pytest.mark.parametrize("name", RESIDUAL)
def test_a_model_without_blocks_is_the_one_with_zeroed_branches(name: str) -> None:
    """Each block alone, and all at once; what only they used is gone from the model."""
    model = to_modules(family_program(name))
    inputs = FAMILIES[name].inputs(batch=3)
    blocks = find_blocks(model, inputs)
    assert len(blocks) == RESIDUAL[name]
    count = sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        original = model(*inputs)
        for chosen in (*((block,) for block in blocks), blocks):
            smaller = without_blocks(model, chosen)
            smaller.graph.lint()
            expected = Zeroed(model, chosen).run(*inputs)
            assert relative_error(smaller(*inputs), expected) < 1e-6
            assert relative_error(smaller(*inputs), original) > 1e-4
            assert sum(p.numel() for p in smaller.parameters()) == count - sum(b.parameters for b in chosen)
            assert all(not hasattr_path(smaller, layer) for block in chosen for layer in block.layers)


def hasattr_path(model: nn.Module, name: str) -> bool:
    return name in dict(model.named_modules())


@pytest.mark.parametrize("name", ["lenet", "shufflenet_v2", "unet", "dlrm"])
def test_models_without_residual_blocks_are_refused(name: str) -> None:
    model = to_modules(family_program(name))
    with pytest.raises(UnsupportedModel, match="depth_pruning: no residual block"):
        apply(model, DepthPruning(), Context(example_inputs=FAMILIES[name].inputs(batch=2), draft=True))


class Nested(nn.Module):
    """A block inside a block, two parallel branches of which one norm is shared, a projection, a sum with a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.norm, self.left, self.right = nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.project, self.branch = nn.Linear(6, 4), nn.Linear(6, 4)
        self.scaled = nn.Linear(4, 4)
        self.gain = nn.Parameter(torch.full((4,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        x = x + self.last(y + self.inner(y))
        z = self.norm(x)
        x = x + self.left(z) + self.right(z)
        x = self.project(x) + self.branch(x)
        x = torch.add(self.scaled(x), x, alpha=2)
        out: Tensor = self.gain * x + x
        return out


def nested() -> tuple[fx.GraphModule, tuple[Tensor, ...]]:
    torch.manual_seed(3)
    inputs = (torch.randn(5, 6),)
    return to_modules(export(Nested().eval(), inputs)), inputs


def test_nested_and_parallel_blocks() -> None:
    model, inputs = nested()
    blocks = {block.name: block for block in find_blocks(model, inputs)}
    assert list(blocks) == ["inner", "first", "left", "right", "gain"]
    assert blocks["first"].layers == ("first", "inner", "last")
    assert "norm" not in {layer for block in blocks.values() for layer in block.layers}
    with torch.no_grad():
        for names in (("inner", "first"), ("left", "right"), ("first", "left", "right", "gain")):
            chosen = [blocks[name] for name in names]
            smaller = without_blocks(model, chosen)
            assert relative_error(smaller(*inputs), Zeroed(model, chosen).run(*inputs)) < 1e-6
    assert not hasattr_path(smaller, "norm"), "nobody reads the shared norm any more"
    assert "gain" not in dict(smaller.named_parameters())


def test_a_layer_that_is_called_again_stays() -> None:
    """The two blocks of this model are calls of the same layers."""
    model = to_modules(exported("tied_weights"))
    inputs = example_inputs("tied_weights")
    blocks = find_blocks(model, inputs)
    assert [(block.name, block.parameters) for block in blocks] == [("fc1", 0), ("fc1#2", 0)]
    one, both = without_blocks(model, blocks[:1]), without_blocks(model, blocks)
    assert hasattr_path(one, "fc1")
    assert not hasattr_path(both, "fc1")
    with torch.no_grad():
        assert relative_error(one(*inputs), Zeroed(model, blocks[:1]).run(*inputs)) < 1e-6


def weakened(strength: dict[str, float]) -> tuple[fx.GraphModule, Context]:
    """The small encoder with the last layer of its branches scaled."""
    model = build("bert")
    with torch.no_grad():
        for name, factor in strength.items():
            layer = model.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            layer.weight.mul_(factor)
            layer.bias.mul_(factor)
    lowered = to_modules(export(model, example_inputs("bert")))
    return lowered, context_for("bert", lowered)


def test_influences_are_the_cosines_of_captured_tensors() -> None:
    model, context = weakened({})
    blocks = find_blocks(model, context.example_inputs)
    seen: dict[str, list[Tensor]] = {}

    class Capture(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            for block in blocks:
                if n.name == block.addition:
                    x = self.env[n.args[block.side]]  # type: ignore[index]
                    for a, b in zip(x, result, strict=True):
                        cosine = torch.dot(a.flatten(), b.flatten()) / a.norm() / b.norm()
                        seen.setdefault(block.name, []).append(cosine)
            return result

    with torch.no_grad():
        for batch in context.batches():
            Capture(model).run(*batch)
    found = influences(model, blocks, context.batches())
    assert found == pytest.approx(
        {name: 1 - float(torch.stack(cosines).mean()) for name, cosines in seen.items()}, abs=1e-5
    )
    assert all(0 < value < 2 for value in found.values())


def test_the_least_influential_blocks_go_first() -> None:
    model, context = weakened({"block1.fc2": 0.01, "block2.attention.output": 0.05})
    for count, names in ((1, ["block1.norm2"]), (2, ["block1.norm2", "block2.norm1"])):
        for rescore in (False, True):
            chosen = choose_blocks(model, DepthPruning(count=count, rescore=rescore), context)
            assert [block.name for block in chosen] == names
    scores = influences(model, find_blocks(model, context.example_inputs), context.batches())
    between = sorted(scores.values())[2]
    assert len(choose_blocks(model, DepthPruning(threshold=between, rescore=False), context)) == 2
    assert len(choose_blocks(model, DepthPruning(threshold=2), context)) == 4


class Fed(nn.Module):
    """The third branch does much with what the first one adds, and nothing without it."""

    def __init__(self) -> None:
        super().__init__()
        self.feed, self.mix, self.fed = (nn.Linear(4, 4, bias=False) for _ in range(3))
        one = torch.diag(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        with torch.no_grad():
            for layer, weight in ((self.feed, 0.25 * one), (self.mix, torch.eye(4).roll(1, 0)), (self.fed, -40 * one)):
                layer.weight.copy_(weight)

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.feed(x)
        z = y + self.fed(torch.relu(y - 1))
        out: Tensor = z + self.mix(z)
        return out


def test_rescoring_sees_what_is_left() -> None:
    inputs = (torch.rand(64, 4, generator=torch.Generator().manual_seed(0)),)
    model = to_modules(export(Fed(), inputs))
    context = Context(example_inputs=inputs, calibration=lambda: [inputs])
    scores = influences(model, find_blocks(model, inputs), context.batches())
    assert scores["feed"] < scores["mix"] < scores["fed"]
    first = [b.name for b in choose_blocks(model, DepthPruning(count=2, rescore=False), context)]
    again = [b.name for b in choose_blocks(model, DepthPruning(count=2), context)]
    assert first == ["feed", "mix"]
    assert again == ["feed", "fed"]


def test_a_draft_without_data_scores_the_example_inputs() -> None:
    model, context = weakened({"block1.fc2": 0.01})
    bare = replace(context, calibration=None, training=None, draft=True)
    assert [block.name for block in choose_blocks(model, DepthPruning(), bare)] == ["block1.norm2"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DepthPruning(count=5), r"depth_pruning.count=5: this model has 4 blocks .*block1.norm1.*lower it"),
        (DepthPruning(blocks=("block1.norm",)), r"'block1.norm' is no block of this model; near it are \['block1.norm"),
        (DepthPruning(threshold=1e-9), r"threshold=1e-09: no block has less influence; the least is 'block"),
    ],
)
def test_wrong_use_is_refused(config: DepthPruning, message: str) -> None:
    model, context = weakened({})
    with pytest.raises(InvalidRecipe, match=message):
        apply(model, config, context)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "depth_pruning.count=0: must be 1 or more"),
        ({"count": 1, "blocks": ("a",)}, "depth_pruning.count and blocks: give one of"),
        ({"threshold": 3.0}, "must lie in 0..2"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        DepthPruning(**fields)


def test_the_activations_that_meet_where_a_block_has_gone_become_one_integer() -> None:
    """Relu(Relu(x)) is left behind; its inner value is never stored, so it has no range of its own."""
    name = "option_a_resnet"
    model, inputs = to_modules(exported(name)), example_inputs(name)
    first = find_blocks(model, inputs)[0].name
    recipe = Recipe((DepthPruning(blocks=(first,)), Quantization()))
    artifact = build_artifact(run_recipe(model, recipe, context_for(name, model)), inputs)
    kinds = Counter(node.op_type for node in artifact.graph.node)
    assert kinds["QLinearConv"]
    assert not kinds["Relu"]
    assert not kinds["Clip"]

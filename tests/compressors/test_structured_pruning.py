"""A pruned model is the masked original, only smaller, and a model in its own right."""

from __future__ import annotations

import copy
import functools
import random
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from benchmarks.families import FAMILIES
from benchmarks.families import exported as family_program
from compressors.channels import ChannelGraph, analyse
from compressors.errors import InvalidRecipe, ParityError
from compressors.layer_shapes import read_costs
from compressors.masking import masked_forward
from compressors.onnx_export import check_parity, export_onnx
from compressors.onnx_runtime import OnnxRuntime
from compressors.programs import describe_layers, to_modules
from compressors.recipes.structured_pruning import Importance, StructuredPruning
from compressors.registry import Context, apply
from compressors.structured_pruning import choose_removed, remove_units, verified_groups, verify_pruned
from compressors.techniques.structured_pruning import prune
from tests.compressors.oddities import ODDITIES, odd_program
from tests.models import MODELS, example_inputs, export, exported

IMPORTANCES: tuple[Importance, ...] = ("l1", "l2", "batch_norm", "random")
FAMILY = "family-"
# The tiny models that no family stands for.
OWN = ("plain_cnn", "option_a_resnet", "mobilenet", "squeeze_excite", "two_inputs", "split_and_shuffle", "tied_weights")
EVERYTHING = [*(f"{FAMILY}{name}" for name in FAMILIES), *ODDITIES, *OWN]


@functools.cache
def program(name: str) -> fx.GraphModule:
    if name.startswith(FAMILY):
        return to_modules(family_program(name.removeprefix(FAMILY)))
    return to_modules(exported(name) if name in MODELS else odd_program(name))


def load(name: str, batch: int = 2) -> tuple[fx.GraphModule, tuple[Tensor, ...]]:
    """A fresh copy of the model, and inputs for it."""
    model = copy.deepcopy(program(name))
    if name.startswith(FAMILY):
        return model, FAMILIES[name.removeprefix(FAMILY)].inputs(batch, seed=batch)
    inputs = example_inputs(name) if name in MODELS else ODDITIES[name][1]
    return model, tuple(torch.cat([tensor, tensor.flip(0)])[:batch] for tensor in inputs)


@functools.cache
def groups_of(name: str) -> ChannelGraph:
    return analyse(*load(name))


def first(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else value[0]


def random_keep(graph: ChannelGraph, seed: int) -> dict[str, int]:
    draw = random.Random(seed)
    return {name: draw.randint(1, size) for name, size in graph.sizes.items()}


@pytest.mark.parametrize("name", EVERYTHING)
def test_pruned_equals_masked_and_costs_what_was_predicted(name: str) -> None:
    """Also for another batch than that of the analysis."""
    model, inputs = load(name)
    others = load(name, batch=3)[1]
    graph = groups_of(name)
    costs = read_costs(model, graph, inputs)
    assert costs.parameters({}) == sum(p.numel() for p in model.parameters())
    for seed in range(4):
        config = StructuredPruning(keep=random_keep(graph, seed), importance=IMPORTANCES[seed])
        removed = choose_removed(model, graph, config, seed)
        pruned = remove_units(model, graph, removed)
        assert verify_pruned(model, graph, removed, pruned, inputs if seed else others) <= 1e-4
        assert costs.parameters(config.keep) == sum(p.numel() for p in pruned.parameters())
        assert costs.macs(config.keep) == sum(layer.macs for layer in describe_layers(pruned, inputs))


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name not in OWN])
def test_pruned_models_export_train_and_prune_again(name: str) -> None:
    model, inputs = load(name)
    graph = groups_of(name)
    half = {group: (size + 1) // 2 for group, size in graph.sizes.items()}
    pruned = prune(model, StructuredPruning(keep=half), Context(example_inputs=inputs, graph=graph))
    again = to_modules(export(pruned, inputs))
    others = load(name, batch=5)[1]
    with torch.no_grad():
        expected = pytree.tree_leaves(pruned(*others))
        assert all(map(torch.equal, pytree.tree_leaves(again(*others)), expected))

    second = analyse(again, inputs)
    one = StructuredPruning(keep=dict.fromkeys(second.sizes, 1))
    removed = choose_removed(again, second, one)
    assert verify_pruned(again, second, removed, remove_units(again, second, removed), inputs) <= 1e-4

    pruned.train()
    optimizer = torch.optim.SGD(pruned.parameters(), lr=0.01)
    before = [p.clone() for p in pruned.parameters()]
    torch.autograd.backward(first(pruned(*inputs)).square().sum())
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, pruned.parameters(), strict=True))


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_group_is_verified(name: str) -> None:
    model, inputs = load(name)
    assert verified_groups(model, groups_of(name), inputs).left_out == {}


def test_the_original_is_untouched() -> None:
    model, inputs = load("option_a_resnet")
    state = {key: value.clone() for key, value in model.state_dict().items()}
    expected, code = model(*inputs), model.code
    pruned = prune(model, StructuredPruning(keep={"conv1": 1, "layer2.conv1": 3}), Context(example_inputs=inputs))
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.add_(1.0)
    assert model.code == code
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(model(*inputs), expected)


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name.startswith(FAMILY)])
def test_pruned_families_run_in_the_runtime(name: str) -> None:
    model, inputs = load(name)
    config = StructuredPruning(ratio=0.4, scope="global", minimum_share=0.2, importance="l1")
    pruned = prune(model, config, Context(example_inputs=inputs, graph=groups_of(name)))
    assert sum(p.numel() for p in pruned.parameters()) < 0.95 * sum(p.numel() for p in model.parameters())
    session = OnnxRuntime().load_model(export_onnx(pruned, inputs), 1)
    with torch.no_grad():
        scale = max(float(leaf.abs().max()) for leaf in pytree.tree_leaves(pruned(*inputs)))
    check_parity(pruned, session, load(name, batch=5)[1], tolerance=1e-4 * max(scale, 1.0))


def test_norms_are_padded_once_however_often_a_model_is_pruned() -> None:
    model, inputs = load("family-bert")
    norms = sum(isinstance(module, nn.LayerNorm) for module in model.modules())
    for _ in range(3):
        graph = analyse(model, inputs)
        removed = choose_removed(model, graph, StructuredPruning(ratio=0.25))
        pruned = remove_units(model, graph, removed)
        assert verify_pruned(model, graph, removed, pruned, inputs) <= 1e-4
        targets = [str(node.target) for node in pruned.graph.nodes]
        assert targets.count("aten.constant_pad_nd.default") == targets.count("aten.slice.Tensor") == norms
        model = pruned
    assert model.get_parameter("words.weight").shape[1] == 14  # 32, 24, 18


class Directions(nn.Module):
    """Two layers and directions; `how` the results are read decides what may go on its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.lstm = nn.LSTM(5, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.fc = nn.Linear({"sum": 8, "part": 6, "states": 32}.get(how, 16), 3)

    def forward(self, x: Tensor) -> Tensor:
        out, (hidden, _) = self.lstm(x)
        read = {
            "last": lambda: out[:, -1],
            "sum": lambda: (out[..., :8] + out[..., 8:]).mean(1),
            "part": lambda: out[:, -1, :6],
            "states": lambda: hidden.transpose(0, 1).flatten(1),
        }
        result: Tensor = self.fc(read[self.how]())
        return result


@pytest.mark.parametrize(
    ("how", "groups"),
    [
        ("last", {"lstm": (8, 4)}),
        # Both directions of the last layer are added: their units are one. The first layer's are free.
        ("sum", {"lstm": (8, 3)}),
        # Six of the last layer's units are read, two not: equally many could not go from all. Then they go together.
        ("part", {"lstm": (6, 1), "lstm#2": (2, 1)}),
        ("states", {"lstm": (8, 1)}),
    ],
)
def test_layers_and_directions_lose_units_of_their_own(how: str, groups: dict[str, tuple[int, int]]) -> None:
    torch.manual_seed(0)
    inputs = (torch.rand(2, 4, 5),)
    model = to_modules(export(Directions(how).eval(), inputs))
    graph = analyse(model, inputs)
    assert {group.name: (group.size, group.lanes) for group in graph.groups} == groups
    assert {group.kind for group in graph.groups} == {"recurrent"}
    assert verified_groups(model, graph, inputs).left_out == {}
    config = StructuredPruning(keep={"lstm": 3})
    removed = choose_removed(model, graph, config)
    size, lanes = groups["lstm"]
    gone = [{unit % size for unit in removed["lstm"] if unit // size == lane} for lane in range(lanes)]
    assert all(len(units) == size - 3 for units in gone)
    assert lanes == 1 or any(units != gone[0] for units in gone)
    pruned = remove_units(model, graph, removed)
    assert verify_pruned(model, graph, removed, pruned, inputs) <= 1e-4
    costs = read_costs(model, graph, inputs)
    assert costs.parameters(config.keep) == sum(p.numel() for p in pruned.parameters())
    assert costs.macs(config.keep) == sum(layer.macs for layer in describe_layers(pruned, inputs))


def test_lanes_that_lose_different_numbers_are_refused() -> None:
    inputs = (torch.rand(2, 4, 5),)
    model = to_modules(export(Directions("last").eval(), inputs))
    graph = analyse(model, inputs)
    with pytest.raises(InvalidRecipe, match=r"lstm: all its lanes must keep equally many units, not \[7, 8, 8, 8\]"):
        remove_units(model, graph, {"lstm": [0]})


def test_the_pad_of_a_shortcut_is_rewritten() -> None:
    model, inputs = load("option_a_resnet")
    graph = analyse(model, inputs)
    # Units 0 and 1 of the group are the front of the pad, 2 and 3 its back.
    pruned = remove_units(model, graph, {"layer2.conv2": [0, 1, 2]})
    pads = [node.args[1][-2:] for node in pruned.graph.nodes if "pad" in str(node.target)]
    assert pads == [[0, 1], [4, 4]]
    assert verify_pruned(model, graph, {"layer2.conv2": [0, 1, 2]}, pruned, inputs) <= 1e-4


def test_tied_weights_stay_tied() -> None:
    model, inputs = load("tied_weights")
    pruned = prune(model, StructuredPruning(keep={"embedding": 3}), Context(example_inputs=inputs))
    assert pruned.get_parameter("head.weight") is pruned.get_parameter("embedding.weight")
    assert pruned.get_parameter("head.weight").shape == (11, 3)


def test_a_wrong_model_fails_verification() -> None:
    model, inputs = load("plain_cnn")
    graph = analyse(model, inputs)
    other = remove_units(model, graph, {"conv1": [0, 1]})
    with pytest.raises(ParityError) as caught:
        verify_pruned(model, graph, {"conv1": [4, 5]}, other, inputs)
    assert caught.value.max_error > 1e-4


def test_groups_that_fail_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = load("mlp")
    graph = analyse(model, inputs)

    def broken(module: fx.GraphModule, graph: ChannelGraph, removed: Any, *given: Tensor) -> Any:
        return masked_forward(module, graph, {} if "fc1" in removed else removed, *given)

    monkeypatch.setattr("compressors.structured_pruning.masked_forward", broken)
    verified = verified_groups(model, graph, inputs)
    assert verified.sizes == {"fc2": 7}
    assert "differs from the masked original" in verified.left_out["fc1"]
    with pytest.raises(InvalidRecipe, match="left out"):
        choose_removed(model, verified, StructuredPruning(keep={"fc1": 2}))


def test_masking_changes_the_output() -> None:
    model, inputs = load("mlp")
    graph = analyse(model, inputs)
    with torch.no_grad():
        assert not torch.allclose(masked_forward(model, graph, {"fc2": [0, 1, 2]}, *inputs), model(*inputs))
        assert torch.equal(masked_forward(model, graph, {}, *inputs), model(*inputs))


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"conv1": 9}, r"\['conv1'\]=9: must lie in 1\.\.8"),
        ({"conv3": 2}, r"no such group; near it are \['conv2', 'conv1'\]"),
        ({"fc2": 2}, "fixed: it is an output of the model"),
    ],
)
def test_wrong_recipes_are_refused(keep: dict[str, int], message: str) -> None:
    model, inputs = load("plain_cnn")
    with pytest.raises(InvalidRecipe, match=message):
        apply(model, StructuredPruning(keep=keep), Context(example_inputs=inputs))


def test_the_graph_of_another_model_is_refused() -> None:
    model, inputs = load("option_a_resnet")
    graph = analyse(model, inputs)
    keep = StructuredPruning(keep={"conv1": 2})
    pruned = prune(model, keep, Context(example_inputs=inputs, graph=graph))
    assert prune(copy.deepcopy(model), keep, Context(example_inputs=inputs, graph=graph)).code == pruned.code
    for other in (pruned, load("densenet")[0]):
        with pytest.raises(InvalidRecipe, match="another model"):
            remove_units(other, graph, {"conv1": [0]})


def test_random_importance_follows_the_seed() -> None:
    model, inputs = load("plain_cnn")
    graph = analyse(model, inputs)
    config = StructuredPruning(keep={"conv1": 4, "conv2": 6, "fc1": 5}, importance="random")
    picks = [choose_removed(model, graph, config, seed) for seed in (0, 0, 1)]
    assert picks[0] == picks[1]
    assert picks[0] != picks[2]

"""Channel groups: which layers are coupled, and what must stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.families import FAMILIES
from benchmarks.families import exported as family_program
from compressors.channels import ChannelGraph, analyse
from compressors.programs import to_modules
from tests.compressors.oddities import ODDITIES, odd_program
from tests.models import example_inputs, export, exported


def graph_of(name: str) -> ChannelGraph:
    return analyse(to_modules(exported(name)), example_inputs(name))


def odd_graph(name: str) -> ChannelGraph:
    return analyse(to_modules(odd_program(name)), ODDITIES[name][1])


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("plain_cnn", {"conv1": 8, "conv2": 12, "fc1": 10}),
        ("mlp", {"fc1": 9, "fc2": 7}),
        ("densenet", {"stem": 6, "convs.0": 4, "convs.1": 4, "convs.2": 4, "transition": 8}),
        # 'widen' makes two channels of each.
        ("mobilenet", {"stem.0": 6, "expand.0": 12, "widen": 2, "head.0": 10}),
        ("squeeze_excite", {"conv1.0": 8, "squeeze": 4, "conv2.0": 6, "fc_squeeze": 3}),
        ("unet", {"down.0": 6, "bottom.0": 10, "up": 6, "fuse.0": 8}),
        ("two_inputs", {"image.0": 6, "table": 7, "mix": 8}),
        ("tied_weights", {"embedding": 8, "fc1": 10}),
        # Half of the stem passes by, half goes through the branch. Value and gate meet: units of two channels.
        ("split_and_shuffle", {"stem.0": 4, "stem.0#2": 4, "branch.0": 4, "mix.0": 6, "gate.0": 5}),
        # Projections are packed: places of query, key and value are one.
        ("vit", {"patches": 8, "attention.in_proj": 2, "attention.in_proj#2": 4, "mlp.0": 14}),
    ],
)
def test_groups_of_each_structure(name: str, sizes: dict[str, int]) -> None:
    assert graph_of(name).sizes == sizes


def test_heads_and_the_places_in_them() -> None:
    graph = graph_of("bert")
    block = {group.name: (group.size, group.kind) for group in graph.groups if group.name.startswith("block1")}
    assert block == {
        "block1.attention.query": (2, "heads"),
        "block1.attention.query#2": (4, "places"),  # of query and key, which are multiplied
        "block1.attention.value": (4, "places"),
        "block1.fc1": (16, "units"),
    }
    heads = graph.group("block1.attention.query")
    assert heads.layers == ("block1.attention.query", "block1.attention.key", "block1.attention.value")
    assert heads.consumers == ("block1.attention.output",)
    stream = graph.group("tokens")
    assert (stream.size, stream.kind) == (8, "units")
    assert {"block1.attention.output", "block2.fc2"} <= set(stream.layers)


def test_rotary_positions_couple_pairs_of_places_and_groups_of_heads() -> None:
    graph = analyse(to_modules(family_program("llama")), FAMILIES["llama"].inputs(2))
    # Two heads share a key; frequency i turns places i and i + 4 of all heads of all blocks.
    assert graph.sizes["blocks.0.query"] == 2
    assert graph.group("blocks.0.query#2").size == 4
    assert set(graph.group("blocks.0.query#2").layers) == {
        f"blocks.{i}.{part}" for i in (0, 1) for part in ("query", "key")
    }


def test_shuffles_leave_every_channel_free() -> None:
    graph = analyse(to_modules(family_program("shufflenet_v2")), FAMILIES["shufflenet_v2"].inputs(2))
    assert graph.protected == {"fc": "it is an output of the model"}
    produced = {"stage2.2.branch2.5": 32, "stage2.1.branch2.5": 16, "stage2.1.branch2.5#2": 16}
    assert produced.items() <= graph.sizes.items()


def test_padded_shortcut_couples_position_by_position() -> None:
    graph = graph_of("option_a_resnet")
    assert graph.sizes == {
        "conv1": 4,
        "layer1.conv1": 4,
        "layer2.conv1": 8,
        "layer2.conv2": 4,  # the 2 + 2 channels that the pad adds to the stream
        "layer3.conv1": 16,
        "layer3.conv2": 8,
    }
    stream = graph.group("conv1")
    assert stream.layers == ("conv1", "layer1.conv2", "layer2.conv2", "layer3.conv2")
    assert stream.consumers == ("layer1.conv1", "layer2.conv1", "layer3.conv1", "linear")


def test_grouped_convolutions_and_group_norms_lose_equal_parts() -> None:
    graph = graph_of("resnext")
    # 12 channels in 3 groups: these, and the places in all of them. 6 channels in 2 norm groups: a unit is a group.
    sizes = {"stem.0": 8, "reduce.0": 3, "reduce.0#2": 4, "grouped.0": 4, "restore.0": 8, "conv": 2}
    assert graph.sizes == sizes
    assert graph.group("reduce.0").kind == "groups"
    assert graph.group("restore.0").layers == ("restore.0", "shortcut.0")


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [("bert", "classifier", "output of the model"), ("plain_cnn", "fc2", "output of the model")],
)
def test_protected_layers_say_why(name: str, layer: str, reason: str) -> None:
    assert reason in graph_of(name).protected[layer]


def test_softmax_over_channels_keeps_them() -> None:
    assert "mixes the channels" in odd_graph("channel_softmax").protected["conv1"]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("convnext", {"stem": 6, "fc1": 10}),
        ("scaled_channels", {"conv": 6, "out": 4}),
        ("upsampling", {"conv1": 6, "conv2": 8, "conv3": 4, "conv4": 3, "conv5": 5}),
        ("uneven_pads", {"conv1": 2, "conv1#2": 2, "conv2": 2, "conv3": 5}),
        # A convolution with 4 groups: these, and the two places in each; the group norm has a unit per channel.
        ("sequence_1d", {"conv1": 4, "conv1#2": 2, "up": 3, "conv2": 6}),
        ("manual_attention", {"embed": 8, "query": 4, "gate": 12}),
        # A layer that is called on its own result, and one along another dimension than that of the channels.
        ("shared_layers", {"stem": 6, "mix": 5, "reduce": 4}),
        ("broadcast_gate", {"conv": 6, "conv2": 6, "conv3": 8}),
        # Reversed, every second taken, repeated: the taken half and the dropped one.
        ("channel_softmax", {"conv2": 6, "conv3": 3, "conv3#2": 3, "conv4": 5}),
    ],
)
def test_awkward_structures(name: str, sizes: dict[str, int]) -> None:
    assert odd_graph(name).sizes == sizes


def test_the_graph_holds_for_a_decomposed_program_too() -> None:
    inputs = example_inputs("option_a_resnet")
    decomposed = analyse(to_modules(exported("option_a_resnet").run_decompositions()), inputs)
    assert decomposed.groups == graph_of("option_a_resnet").groups


def test_left_out_groups_are_not_listed() -> None:
    graph = graph_of("mlp").without({"fc1": "a reason"})
    assert graph.sizes == {"fc2": 7}
    assert graph.left_out == {"fc1": "a reason"}


def test_kept_marks_exactly_the_units_of_the_group() -> None:
    graph = graph_of("mlp")
    kept = graph.kept({"fc1": [0, 3]})
    assert (~kept).sum() == 2
    assert not kept[graph.members["fc1"][[0, 3]]].any()


def test_a_model_without_anything_to_prune_has_no_groups() -> None:
    inputs = (torch.rand(2, 4),)
    assert analyse(to_modules(export(nn.Linear(4, 2).eval(), inputs)), inputs).groups == ()

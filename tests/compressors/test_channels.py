"""Channel groups: which layers are coupled, and what must stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

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
        ("mobilenet", {"stem.0": 6, "expand.0": 12, "head.0": 10}),
        ("squeeze_excite", {"conv1.0": 8, "squeeze": 4, "conv2.0": 6, "fc_squeeze": 3}),
        ("bert", {"block1.fc1": 16, "block2.fc1": 12}),
        ("vit", {"mlp.0": 14}),
        ("unet", {"down.0": 6, "bottom.0": 10, "up": 6, "fuse.0": 8}),
        ("two_inputs", {"image.0": 6, "table": 7, "mix": 8}),
        ("tied_weights", {"embedding": 8, "fc1": 10}),
        # The stem's left half and the branch are shuffled: they stay. Value and gate meet: units of two channels.
        ("split_and_shuffle", {"stem.0": 4, "mix.0": 6, "gate.0": 5}),
    ],
)
def test_groups_of_each_structure(name: str, sizes: dict[str, int]) -> None:
    assert graph_of(name).sizes == sizes


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
    # 12 channels in 3 groups: a unit is one position in every group. 6 channels in 2 norm groups: a unit is a group.
    assert graph.sizes == {"stem.0": 8, "reduce.0": 4, "grouped.0": 4, "restore.0": 8, "conv": 2}
    assert graph.group("restore.0").layers == ("restore.0", "shortcut.0")


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [
        ("bert", "tokens", "normalises"),
        ("bert", "block1.attention.query", "splits the channels"),
        ("vit", "patches", "fixed"),
        ("plain_cnn", "fc2", "output of the model"),
    ],
)
def test_protected_layers_say_why(name: str, layer: str, reason: str) -> None:
    assert reason in graph_of(name).protected[layer]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("convnext", {"fc1": 10}),
        ("scaled_channels", {"conv": 6, "out": 4}),
        ("upsampling", {"conv1": 6, "conv2": 8, "conv5": 5}),
        ("uneven_pads", {"conv1": 2, "conv1#2": 2, "conv2": 2, "conv3": 5}),
        ("recurrent", {"fc1": 8}),
        ("sequence_1d", {"conv1": 2, "up": 3, "conv2": 6}),
        ("manual_attention", {"gate": 12}),
        ("shared_layers", {"stem": 6}),
        ("broadcast_gate", {"conv": 6}),
        ("channel_softmax", {"conv4": 5}),
    ],
)
def test_what_is_not_understood_stays(name: str, sizes: dict[str, int]) -> None:
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

"""Equalisation: the same function, equal ranges, and what it is worth for a grid per tensor."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from benchmarks import families
from compressors.equalization import Pair, equalize, find_pairs
from compressors.errors import UnsupportedModel
from compressors.folding import folded_copy
from compressors.programs import to_modules
from compressors.recipe import CrossLayerEqualization
from compressors.registry import apply
from tests.conformance.technique import Case, TechniqueConformance, context_for, rows
from tests.models import exported

CASES = (
    Case("option_a_resnet", CrossLayerEqualization()),
    Case("plain_cnn", CrossLayerEqualization()),
    Case("two_inputs", CrossLayerEqualization()),
)


def relative_difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("case", CASES, ids=str)
class TestCrossLayerEqualization(TechniqueConformance):
    def test_the_function_is_kept(self, case: Case, start: fx.GraphModule, changed: fx.GraphModule) -> None:
        inputs = rows(case.model, 16)
        with torch.no_grad():
            assert relative_difference(changed(*inputs), start(*inputs)) < 1e-4
        before = folded_copy(start, inputs).state_dict()
        assert any(not torch.equal(tensor, before[name]) for name, tensor in changed.state_dict().items())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("option_a_resnet", {f"layer{i}.conv1": (f"layer{i}.conv2",) for i in (1, 2, 3)}),
        ("plain_cnn", {"conv1": ("conv2",), "fc1": ("fc2",)}),  # conv2 ends in a clipping at 6
        ("tied_weights", {}),  # called twice
        ("mobilenet", {"widen": ("head.0",)}),  # the others clip at 6 or end in a sum
        ("unet", {"bottom.0": ("up",), "fuse.0": ("out",)}),  # joined channels are left alone
    ],
)
def test_pairs(name: str, expected: dict[str, tuple[str, ...]]) -> None:
    model = folded_copy(to_modules(exported(name)), rows(name, 2))
    found = {pair.first: pair.readers for pair in find_pairs(model, rows(name, 2))}
    assert found == expected


class _Chain(nn.Module):
    """Every kind of layer and of passage between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.grouped = nn.Conv2d(8, 6, 1, groups=2)
        self.up = nn.ConvTranspose2d(6, 4, 2, 2, groups=2)
        self.left = nn.Conv2d(4, 5, 3)
        self.right = nn.Conv2d(4, 5, 1)
        self.fc1 = nn.Linear(5 * 4, 7)
        self.fc2 = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.depthwise(functional.leaky_relu(self.conv(x), 0.1)))
        x = functional.relu(self.up(functional.max_pool2d(functional.pad(self.grouped(x), (1, 1, 0, 0)), 2)))
        x = functional.adaptive_avg_pool2d(self.left(x), 2) + functional.adaptive_avg_pool2d(self.right(x), 2)
        out: Tensor = self.fc2(functional.relu(self.fc1(x.flatten(1))))
        return out


def unequal(model: fx.GraphModule) -> None:
    """Channels of very different size."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            spread = torch.exp2(torch.randint(-4, 5, (module.weight.shape[0],), generator=generator).float())
            module.weight.data *= spread.reshape(-1, *[1] * (module.weight.dim() - 1))


def test_chains_of_all_kinds_of_layers() -> None:
    torch.manual_seed(0)
    inputs = (torch.rand(4, 3, 14, 14),)
    model = to_modules(torch.export.export(_Chain().eval(), inputs))
    unequal(model)
    changed = copy.deepcopy(model)
    pairs = find_pairs(changed, inputs)
    assert {pair.first: pair.readers for pair in pairs} == {
        "conv": ("depthwise",),
        "depthwise": ("grouped",),
        "grouped": ("up",),
        "up": ("left", "right"),
        "fc1": ("fc2",),
    }
    equalize(changed, pairs)
    with torch.no_grad():
        assert relative_difference(changed(*inputs), model(*inputs)) < 1e-4
    outgoing = changed.get_parameter("fc1.weight").abs().amax(1)
    incoming = changed.get_parameter("fc2.weight").abs().amax(0)
    torch.testing.assert_close(outgoing, incoming, rtol=0.02, atol=0)


def test_flattened_channels_scale_their_features() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2))
    inputs = (torch.rand(3, 1, 5, 5),)
    model = to_modules(torch.export.export(layers.eval(), inputs))
    unequal(model)
    changed = copy.deepcopy(model)
    pairs = find_pairs(changed, inputs)
    assert pairs == [Pair("0", ("3",))]
    equalize(changed, pairs)
    with torch.no_grad():
        assert relative_difference(changed(*inputs), model(*inputs)) < 1e-4


def test_one_grid_for_a_whole_tensor_fits_better_afterwards() -> None:
    inputs = (torch.rand(8, 3, 14, 14),)
    torch.manual_seed(1)
    model = to_modules(torch.export.export(_Chain().eval(), inputs))
    unequal(model)
    changed = copy.deepcopy(model)
    equalize(changed, find_pairs(changed, inputs))

    def error(network: fx.GraphModule) -> float:
        rounded = copy.deepcopy(network)
        for parameter in rounded.parameters():
            if parameter.dim() > 1:
                step = parameter.detach().abs().max() / 31
                parameter.data = (parameter.data / step).round() * step
        with torch.no_grad():
            return float((rounded(*inputs) - network(*inputs)).square().mean())

    assert error(changed) < 0.3 * error(model)


@pytest.mark.parametrize("name", ["resnet_b", "vgg", "densenet", "senet", "speech_cnn"])
def test_families_keep_their_function(name: str) -> None:
    model = to_modules(families.exported(name))
    inputs = families.FAMILIES[name].inputs(4)
    folded = folded_copy(model, inputs)
    pairs = find_pairs(folded, inputs)
    equalize(folded, pairs)
    with torch.no_grad():
        assert relative_difference(folded(*inputs), model(*inputs)) < 1e-4


def test_a_model_without_pairs_is_refused() -> None:
    model = to_modules(exported("bert"))
    with pytest.raises(UnsupportedModel, match=r"cross_layer_equalization: no layer passes its channels"):
        apply(model, CrossLayerEqualization(), context_for("bert", model))

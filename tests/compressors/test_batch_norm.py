"""Folding changes the graph, not what it computes."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from compressors.batch_norm import fold_batch_norm
from compressors.folding import folded_copy
from compressors.programs import to_modules
from tests.models import build, example_inputs, exported


def norms(module: nn.Module) -> int:
    return sum(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) for m in module.modules())


def randomized(model: nn.Module) -> fx.GraphModule:
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            module.running_mean = torch.randn(module.num_features)
            module.running_var = torch.rand(module.num_features) + 0.5
    return fx.symbolic_trace(model.eval())


@pytest.mark.parametrize(("name", "left"), [("option_a_resnet", 0), ("mobilenet", 0), ("densenet", 4)])
def test_folded_models_agree(name: str, left: int) -> None:
    module = to_modules(exported(name))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    folded = fold_batch_norm(module)
    inputs = example_inputs(name)
    with torch.no_grad():
        torch.testing.assert_close(folded(*inputs), build(name)(*inputs), atol=1e-5, rtol=1e-5)
    assert norms(folded) == left
    assert not folded.training
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv1d(4, 6, 3, groups=2), nn.BatchNorm1d(6), (2, 4, 8)),
        (nn.Conv3d(2, 4, 2, bias=False), nn.BatchNorm3d(4, affine=False), (2, 2, 4, 4, 4)),
        (nn.ConvTranspose2d(4, 6, 3, groups=2, stride=2), nn.BatchNorm2d(6), (2, 4, 5, 5)),
        (nn.ConvTranspose1d(3, 5, 2, bias=False), nn.BatchNorm1d(5), (2, 3, 5)),
    ],
)
def test_every_kind_of_convolution_folds(layer: nn.Module, norm: nn.Module, shape: tuple[int, ...]) -> None:
    module = randomized(nn.Sequential(layer, norm))
    folded = fold_batch_norm(module)
    x = torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), module(x), atol=1e-5, rtol=1e-5)
    assert norms(folded) == 0


@pytest.mark.parametrize(
    ("norm", "layer", "shape", "left"),
    [
        (nn.BatchNorm1d(6), nn.Linear(6, 4), (3, 6), 0),
        (nn.BatchNorm1d(6), nn.Linear(6, 4, bias=False), (3, 6), 0),
        (nn.BatchNorm2d(6), nn.Conv2d(6, 9, 3, stride=2, groups=3), (2, 6, 7, 7), 0),
        (nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=6, bias=False, padding="valid"), (2, 6, 5, 5), 0),
        (nn.BatchNorm1d(4), nn.Conv1d(4, 5, 1), (2, 4, 6), 0),
        (nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1), (2, 6, 5, 5), 1),
        (nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding="same"), (2, 6, 5, 5), 1),
        (nn.BatchNorm2d(6), nn.ConvTranspose2d(6, 4, 3), (2, 6, 5, 5), 1),
        (nn.BatchNorm1d(6), nn.Linear(4, 5), (2, 6, 4), 1),
    ],
)
def test_norms_in_front_of_a_layer_fold_where_no_padding_intervenes(
    norm: nn.Module, layer: nn.Module, shape: tuple[int, ...], left: int
) -> None:
    module = randomized(nn.Sequential(norm, layer))
    x = torch.randn(shape)
    folded = folded_copy(module, (x,))
    with torch.no_grad():
        torch.testing.assert_close(folded(x), module(x), atol=1e-5, rtol=1e-5)
    assert norms(folded) == left


def test_a_norm_between_two_layers_folds_into_the_first() -> None:
    module = randomized(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1, bias=False)))
    folded = fold_batch_norm(module)
    assert norms(folded) == 0
    assert torch.equal(folded.get_parameter("2.weight"), module.get_parameter("2.weight"))


def test_an_activation_behind_the_norm_keeps_it() -> None:
    module = randomized(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1)))
    assert norms(fold_batch_norm(module)) == 1


def test_a_linear_layer_on_sequences_is_left_alone() -> None:
    # Axis 1 is the sequence here, and happens to be as long as the features.
    module = randomized(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
    assert norms(fold_batch_norm(module)) == 1


def test_layers_with_other_readers_are_left_alone() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)
            self.norm = nn.BatchNorm2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.conv(x)
            z: torch.Tensor = self.norm(y) + y
            return z

    assert norms(fold_batch_norm(randomized(Shared()))) == 1


def test_norms_without_statistics_are_left_alone() -> None:
    module = randomized(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)))
    norm = module.get_submodule("1")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean = norm.running_var = None
    assert norms(fold_batch_norm(module)) == 1

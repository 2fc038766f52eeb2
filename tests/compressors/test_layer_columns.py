"""A layer's output is its weight's rows times its columns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressors.layer_columns import has_columns, sample_columns, weight_rows

LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(5, 3, bias=False), (4, 5)),
    (nn.Linear(5, 3, bias=False), (4, 6, 5)),
    (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2, bias=False), (3, 4, 9)),
    (nn.Conv2d(3, 8, 3, padding="same", dilation=2, bias=False), (3, 3, 7, 6)),
    (nn.Conv2d(4, 4, (3, 2), groups=4, bias=False), (2, 4, 5, 5)),
    (nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect", bias=False), (2, 2, 5, 5)),
    (nn.Conv3d(2, 3, 2, stride=(1, 2, 1), bias=False), (2, 2, 4, 4, 3)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda item: str(item)[:40])
def test_rows_times_columns(layer: nn.Module, shape: tuple[int, ...]) -> None:
    assert has_columns(layer)
    x = torch.rand(shape)
    with torch.no_grad():
        columns = sample_columns(layer, [x], 10**6, seed=0)
        product = weight_rows(layer, layer.get_parameter("weight")) @ columns
        expected: Tensor = layer(x)
    channels = product.shape[0] * product.shape[1]
    outputs = expected.movedim(-1 if isinstance(layer, nn.Linear) else 1, 0)
    torch.testing.assert_close(product.reshape(channels, -1), outputs.reshape(channels, -1))


def test_the_same_seed_picks_the_same_positions() -> None:
    layer = nn.Conv2d(3, 4, 3)
    batches = [torch.rand(5, 3, 8, 8), torch.rand(3, 3, 8, 8)]
    some = sample_columns(layer, batches, 40, seed=1)
    assert 40 <= some.shape[2] <= 44
    doubled = sample_columns(layer, [2 * batch for batch in batches], 40, seed=1)
    torch.testing.assert_close(doubled, 2 * some)
    assert not torch.equal(sample_columns(layer, batches, 40, seed=2), some)


def test_layers_without_columns() -> None:
    assert not has_columns(nn.Embedding(3, 4))
    assert not has_columns(nn.ConvTranspose2d(3, 4, 2))
    assert not has_columns(nn.LSTM(3, 4))

"""Small models with one awkward structure each: pruning must be exact on them or leave the channels alone."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.export import ExportedProgram

from tests.models import export


class ConvNext(nn.Module):
    """Layer norm over channels-last, layer scale, global response over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 2, 2)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.LayerNorm(6)
        self.fc1 = nn.Linear(6, 10)
        self.fc2 = nn.Linear(10, 6)
        self.scale = nn.Parameter(torch.rand(6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.fc2(F.gelu(self.fc1(y))) * self.scale
        out: Tensor = self.head((x + y.permute(0, 3, 1, 2)).mean((-2, -1)))
        return out


class ScaledChannels(nn.Module):
    """Parameters and buffers that meet the channels: sliced along with them."""

    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.gain = nn.Parameter(torch.rand(6, 1, 1))
        self.register_buffer("bias", torch.rand(1, 6, 1, 1))
        self.map = nn.Parameter(torch.rand(6, 6, 6))
        self.prelu = nn.PReLU(6)
        self.out = nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.conv(x) * self.gain + self.bias) - self.map
        out: Tensor = self.fc(F.elu(self.out(x)).amax((2, 3)))
        return out


class Upsampling(nn.Module):
    """Interpolation, pixel shuffle, gated halves, padding of an image, dropped channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect")
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.conv3 = nn.Conv2d(8, 16, 1)
        self.conv4 = nn.Conv2d(4, 6, 1)
        self.conv5 = nn.Conv2d(3, 5, 1)
        self.dropout = nn.Dropout2d(0.3)
        self.out = nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(F.relu(self.conv1(x)), scale_factor=2.0, mode="nearest")
        x = F.pad(F.relu(self.conv2(x)), (1, 1, 1, 1))
        x = F.pixel_shuffle(self.conv3(x), 2)
        x = F.glu(self.conv4(x), dim=1)
        out: Tensor = self.out(self.dropout(F.relu(self.conv5(x))))
        return out


class UnevenPads(nn.Module):
    """Channels padded only behind, then a slice of them, then a branch on the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 7, 3, padding=1)
        self.conv3 = nn.Conv2d(3, 5, 3, padding=1)
        self.fc = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x) + F.pad(x, (0, 0, 0, 0, 0, 3), value=0.5))
        x = torch.sigmoid(self.conv3(x[:, 2:5]))
        out: Tensor = self.fc(x.sum((2, 3)))
        return out


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.fc1 = nn.Linear(5, 8)
        self.fc2 = nn.Linear(8, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.relu(self.fc1(self.lstm(self.embedding(tokens))[0][:, -1])))
        return out


class Sequence1d(nn.Module):
    """1d convolutions, grouped transposed convolution, instance norm, several results."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(2, 8, 3, padding="same")
        self.bn = nn.BatchNorm1d(8, affine=False)
        self.up = nn.ConvTranspose1d(8, 12, 2, 2, groups=4)
        self.conv2 = nn.Conv1d(12, 6, 3)
        self.instance = nn.GroupNorm(6, 6)
        self.conv3 = nn.Conv1d(6, 6, 3)
        self.norm = nn.InstanceNorm1d(6, affine=True)
        self.spread = nn.ConvTranspose1d(6, 6, 2, groups=6)
        self.head1 = nn.Linear(6, 2)
        self.head2 = nn.Conv1d(6, 3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.relu(self.bn(self.conv1(x)))
        x = F.relu6(self.instance(self.conv2(self.up(x))))
        x = self.spread(F.relu(self.norm(self.conv3(x))) + x[:, :, 2:])
        return self.head1(x.mean(-1)), self.head2(x)


class ManualAttention(nn.Module):
    """Attention out of matrix products, softmax, and a root-mean-square norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.query = nn.Linear(8, 4)
        self.key = nn.Linear(8, 4)
        self.value = nn.Linear(8, 8)
        self.norm = nn.RMSNorm(8)
        self.gate = nn.Linear(8, 12, bias=False)
        self.lift = nn.Linear(8, 12, bias=False)
        self.lower = nn.Linear(12, 8, bias=False)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        weights = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2) / 2.0, -1)
        x = self.norm(x + weights @ self.value(x))
        x = x + self.lower(F.silu(self.gate(x)) * self.lift(x))
        out: Tensor = self.head(x[:, 0])
        return out


class SharedLayers(nn.Module):
    """One convolution called at two places, stacked and joined results, a linear layer over space."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.shared = nn.Conv2d(6, 6, 3, padding=1)
        self.space = nn.Linear(8, 8)
        self.mix = nn.Conv2d(12, 5, 1)
        self.reduce = nn.Conv2d(5, 4, 1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        a = F.relu(self.shared(x))
        b = self.shared(a)
        x = F.relu(self.mix(torch.cat([a, b], 1)))
        x = self.reduce(self.space(x))
        pooled = torch.stack([x.mean((2, 3)), x.amax((2, 3))], 1)
        out: Tensor = self.fc(pooled.flatten(1))
        return out


class BroadcastGate(nn.Module):
    """A one-channel map over all channels, a stored mask by view, channels compared with a constant tensor."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.attend = nn.Conv2d(6, 1, 1)
        self.conv2 = nn.Conv2d(6, 6, 1)
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0, 1.0, 0.5, 1.0]))
        self.conv3 = nn.Conv2d(6, 8, 1)
        self.fc = nn.Linear(8 * 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        x = x * torch.sigmoid(self.attend(x))
        x = self.conv2(x) * self.mask.view(1, -1, 1, 1)
        x = torch.where(self.conv3(x) > 0.1, 1.0, 0.2)
        out: Tensor = self.fc(x.reshape(x.size(0), -1))
        return out


class ChannelSoftmax(nn.Module):
    """Softmax, maximum and arithmetic over channels: those must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 1)
        self.conv2 = nn.Conv2d(6, 6, 1)
        self.conv3 = nn.Conv2d(6, 6, 1)
        self.conv4 = nn.Conv2d(6, 5, 1)
        self.fc = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.softmax(self.conv1(x), 1)
        x = self.conv2(x)
        x = x / x.norm(dim=1, keepdim=True).clamp_min(0.1)
        x = self.conv3(x).flip(1)[:, ::2].repeat(1, 2, 1, 1)
        out: Tensor = self.fc(self.conv4(x).mean((2, 3)))
        return out


def _images() -> tuple[Tensor, ...]:
    return (torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)),)


ODDITIES: dict[str, tuple[type[nn.Module], tuple[Tensor, ...]]] = {
    "convnext": (ConvNext, _images()),
    "scaled_channels": (ScaledChannels, _images()),
    "upsampling": (Upsampling, _images()),
    "uneven_pads": (UnevenPads, _images()),
    "recurrent": (Recurrent, (torch.tensor([[0, 1, 2, 3], [4, 5, 6, 0]]),)),
    "sequence_1d": (Sequence1d, (torch.rand(2, 2, 9, generator=torch.Generator().manual_seed(2)),)),
    "manual_attention": (ManualAttention, (torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(3)),)),
    "shared_layers": (SharedLayers, _images()),
    "broadcast_gate": (BroadcastGate, _images()),
    "channel_softmax": (ChannelSoftmax, _images()),
}


@functools.cache
def odd_program(name: str) -> ExportedProgram:
    """The model called `name` in ODDITIES, exported once per test process; leave it unchanged."""
    kind, inputs = ODDITIES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return export(kind().eval(), inputs)

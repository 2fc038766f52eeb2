"""Deterministic tiny models, one per structure that compression has to understand.

`build(name)` gives the model in evaluation mode with random batch-norm statistics (so that nothing is accidentally
zero or one); `example_inputs(name)` two samples for it; `export_pt2` writes a .pt2 with a free batch dimension.
"""

from __future__ import annotations

import functools
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

VOCABULARY = 11
SEQUENCE = 6


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class PlainCnn(nn.Module):
    """Convolutions with batch norm, pooling, flatten of (C, H, W) into a linear layer, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, padding="same")
        self.bn2 = nn.BatchNorm2d(12)
        self.fc1 = nn.Linear(12 * 4 * 4, 10)
        self.dropout = nn.Dropout(0.5)
        self.fc2 = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 2)
        x = F.avg_pool2d(F.hardtanh(self.bn2(self.conv2(x)), 0.0, 6.0), 2)
        x = self.dropout(F.relu(self.fc1(torch.flatten(x, 1))))
        out: Tensor = self.fc2(x)
        return out


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(5, 9)
        self.bn = nn.BatchNorm1d(9)
        self.fc2 = nn.Linear(9, 7, bias=False)
        self.fc3 = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc3(torch.tanh(self.fc2(F.silu(self.bn(self.fc1(x))))))
        return out


class BasicBlock(nn.Module):
    """He et al. 2015, shortcut option A: strided slice and channel pad, no parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.padding = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        if self.padding:
            shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class OptionAResNet(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.2]).view(1, 3, 1, 1))
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = BasicBlock(4, 4, 1)
        self.layer2 = BasicBlock(4, 8, 2)
        self.layer3 = BasicBlock(8, 16, 2)
        self.linear = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.adaptive_avg_pool2d(x, 1)
        out: Tensor = self.linear(x.view(x.size(0), -1))
        return out


class DenseNet(nn.Module):
    """Every layer reads the concatenation of all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1, bias=False) for i in range(3))
        self.norm = nn.BatchNorm2d(18)
        self.transition = nn.Conv2d(18, 8, 1, bias=False)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, conv in zip(self.norms, self.convs, strict=True):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        x = F.avg_pool2d(self.transition(F.relu(self.norm(torch.cat(features, 1)))), 2)
        out: Tensor = self.classifier(x.mean((2, 3)))
        return out


class MobileNet(nn.Module):
    """Inverted residuals with depthwise convolutions and ReLU6 (Sandler et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 6)
        self.expand = conv_bn(6, 12, 1)
        self.depthwise = conv_bn(12, 12, 3, groups=12)
        self.project = conv_bn(12, 6, 1)
        self.widen = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.head = conv_bn(12, 10, 1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        x = x + self.project(F.relu6(self.depthwise(F.relu6(self.expand(x)))))
        x = F.hardswish(self.head(self.widen(x)))
        out: Tensor = self.classifier(F.adaptive_avg_pool2d(x, (1, 1)).flatten(1))
        return out


class ResNeXt(nn.Module):
    """Grouped convolution between two 1x1 convolutions (Xie et al. 2017), a group norm and a projection shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.reduce = conv_bn(8, 12, 1)
        self.grouped = conv_bn(12, 12, 3, groups=3)
        self.restore = conv_bn(12, 8, 1)
        self.shortcut = conv_bn(8, 8, 1)
        self.conv = nn.Conv2d(8, 6, 3)
        self.norm = nn.GroupNorm(2, 6)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        branch = self.restore(F.relu(self.grouped(F.relu(self.reduce(x)))))
        x = F.relu(branch + self.shortcut(x))
        x = F.relu(self.norm(self.conv(x)))
        out: Tensor = self.fc(x.mean(dim=[-2, -1]))
        return out


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate computed from their means (Hu et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv_bn(3, 8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.conv2 = conv_bn(8, 6)
        self.fc_squeeze = nn.Linear(6, 3)
        self.fc_excite = nn.Linear(3, 6)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))
        x = F.relu(self.conv2(x))
        gate = torch.sigmoid(self.fc_excite(F.relu(self.fc_squeeze(x.mean((2, 3))))))
        x = x * gate.view(x.size(0), 6, 1, 1)
        out: Tensor = self.fc(F.adaptive_max_pool2d(x, 1).flatten(1))
        return out


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape

        def split(t: Tensor) -> Tensor:
            return t.view(batch, length, self.heads, width // self.heads).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(split(self.query(x)), split(self.key(x)), split(self.value(x)))
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.dropout = nn.Dropout(0.1)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.fc2(self.dropout(F.gelu(self.fc1(self.norm2(x)))))
        return out


class Bert(nn.Module):
    """Token and position embeddings, attention, feed-forward, mean over the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 8)
        self.positions = nn.Parameter(torch.randn(1, SEQUENCE, 8) * 0.1)
        self.block1 = TransformerBlock(8, 2, 16)
        self.block2 = TransformerBlock(8, 2, 12)
        self.norm = nn.LayerNorm(8)
        self.classifier = nn.Linear(8, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.block2(self.block1(self.tokens(tokens) + self.positions))
        out: Tensor = self.classifier(self.norm(x).mean(1))
        return out


class Vit(nn.Module):
    """Patches by a strided convolution, class token, packed attention of PyTorch's own layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8) * 0.1)
        self.norm1 = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm2 = nn.LayerNorm(8)
        self.mlp = nn.Sequential(nn.Linear(8, 14), nn.GELU(), nn.Linear(14, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.size(0), -1, -1), x], 1)
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.mlp(self.norm2(x))
        out: Tensor = self.head(x[:, 0])
        return out


class UNet(nn.Module):
    """Down, transposed convolution up, concatenation with the skip; the output is an image."""

    def __init__(self) -> None:
        super().__init__()
        self.down = conv_bn(3, 6)
        self.bottom = conv_bn(6, 10, stride=2)
        self.up = nn.ConvTranspose2d(10, 6, 2, 2)
        self.fuse = conv_bn(12, 8)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        x = self.up(F.leaky_relu(self.bottom(skip)))
        out: Tensor = self.out(F.relu(self.fuse(torch.cat([skip, x], 1))))
        return out


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = conv_bn(3, 6)
        self.table = nn.Linear(5, 7)
        self.mix = nn.Linear(13, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        left = F.relu(self.image(image)).mean((2, 3))
        out: Tensor = self.out(F.relu(self.mix(torch.cat([left, F.relu(self.table(table))], dim=1))))
        return out


class TiedWeights(nn.Module):
    """A language model whose output layer is its embedding, and a block that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.fc1 = nn.Linear(8, 10)
        self.fc2 = nn.Linear(10, 8)
        self.head = nn.Linear(8, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for _ in range(2):
            x = x + self.fc2(F.relu(self.fc1(x)))
        out: Tensor = self.head(x)
        return out


class SplitAndShuffle(nn.Module):
    """Channel split and shuffle (Ma et al. 2018): the halves are understood, the shuffle only partly."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.branch = conv_bn(4, 4)
        self.mix = conv_bn(8, 6, 1)
        self.gate = conv_bn(6, 10, 1)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        left, right = F.relu(self.stem(x)).chunk(2, dim=1)
        x = torch.cat([left, F.relu(self.branch(right))], 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        x = F.relu(self.mix(x))
        value, gate = torch.split(self.gate(x), 5, dim=1)
        out: Tensor = self.fc((value * torch.sigmoid(gate)).mean((2, 3)))
        return out


@dataclass(frozen=True)
class TinyModel:
    factory: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]


def _images() -> tuple[Tensor, ...]:
    return (torch.rand(2, 3, 8, 8),)


def _tokens() -> tuple[Tensor, ...]:
    return (torch.randint(0, VOCABULARY, (2, SEQUENCE)),)


MODELS: dict[str, TinyModel] = {
    "plain_cnn": TinyModel(PlainCnn, lambda: (torch.rand(2, 3, 16, 16),)),
    "mlp": TinyModel(Mlp, lambda: (torch.rand(2, 5),)),
    "option_a_resnet": TinyModel(OptionAResNet, _images),
    "densenet": TinyModel(DenseNet, _images),
    "mobilenet": TinyModel(MobileNet, _images),
    "resnext": TinyModel(ResNeXt, _images),
    "squeeze_excite": TinyModel(SqueezeExcite, _images),
    "bert": TinyModel(Bert, _tokens),
    "vit": TinyModel(Vit, _images),
    "unet": TinyModel(UNet, _images),
    "two_inputs": TinyModel(TwoInputs, lambda: (torch.rand(2, 3, 8, 8), torch.rand(2, 5))),
    "tied_weights": TinyModel(TiedWeights, _tokens),
    "split_and_shuffle": TinyModel(SplitAndShuffle, _images),
}


def build(name: str, seed: int = 0) -> nn.Module:
    """The model called `name` in MODELS, in evaluation mode; the same weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()) + seed)
        model = MODELS[name].factory()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.uniform_(-0.5, 0.5)
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def example_inputs(name: str, seed: int = 0) -> tuple[Tensor, ...]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name].inputs()


def export(model: nn.Module, inputs: tuple[Tensor, ...], batch_axis: int | None = 0) -> ExportedProgram:
    """torch.export with a free batch dimension; batch_axis=None: with fixed shapes."""
    batch = Dim("batch", min=1, max=4096)
    free = None if batch_axis is None else tuple({batch_axis: batch} for _ in inputs)
    with warnings.catch_warnings():
        # Recurrent layers keep a second list of their weights, which the exporter warns about.
        warnings.filterwarnings("ignore", message="The tensor attributes .* were assigned during export")
        return torch.export.export(model, inputs, dynamic_shapes=free)


@functools.cache
def exported(name: str) -> ExportedProgram:
    """The program of `build(name)`, exported once per test process; leave it unchanged."""
    return export(build(name), example_inputs(name))


def export_pt2(model: nn.Module, path: Path, inputs: tuple[Tensor, ...] | None = None) -> Path:
    """Writes `model` to `path`; inputs default to those of its class in MODELS."""
    if inputs is None:
        name = next(name for name, tiny in MODELS.items() if tiny.factory is type(model))
        inputs = example_inputs(name)
    torch.export.save(export(model, inputs), path)
    return path

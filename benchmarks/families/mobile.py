"""Networks made for phones: depthwise convolutions, inverted residuals, channel shuffle, gated blocks with SiLU."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.families.convolutional import conv_bn, conv_bn_relu
from benchmarks.families.family import Family, images


class MobileNetV1(nn.Module):
    """Howard et al. 2017: a depthwise and a pointwise convolution in turn."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_bn_relu(3, 16, stride=2)]
        for inputs, outputs, stride in [(16, 24, 1), (24, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]:
            layers += [conv_bn_relu(inputs, inputs, 3, stride, inputs), conv_bn_relu(inputs, outputs, 1)]
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = F.avg_pool2d(x, 4)
        out: Tensor = self.fc(x.view(-1, 64))
        return out


class InvertedResidual(nn.Module):
    """Sandler et al. 2018: expand, depthwise, linear projection; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [*conv_bn(inputs, hidden, 1), nn.ReLU6(inplace=True)]
        layers += [*conv_bn(hidden, hidden, 3, stride, hidden), nn.ReLU6(inplace=True), *conv_bn(hidden, outputs, 1)]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv(x) if self.residual else self.conv(x)
        return out


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 8), nn.ReLU6(inplace=True))
        settings = [(8, 8, 1, 1), (8, 16, 2, 4), (16, 16, 1, 4), (16, 24, 2, 4), (24, 24, 1, 4)]
        self.blocks = nn.Sequential(*(InvertedResidual(*setting) for setting in settings))
        self.head = nn.Sequential(*conv_bn(24, 64, 1), nn.ReLU6(inplace=True))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        out: Tensor = self.classifier(F.adaptive_avg_pool2d(x, (1, 1)).reshape(x.shape[0], -1))
        return out


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).contiguous().view(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """Ma et al. 2018: one half of the channels passes by, the other is convolved, then both are shuffled. With
    stride 2 both branches see all channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        source = inputs if stride > 1 else half
        self.branch1 = (
            nn.Sequential(*conv_bn(inputs, inputs, 3, stride, inputs), *conv_bn_relu(inputs, half, 1))
            if stride > 1
            else nn.Identity()
        )
        self.branch2 = nn.Sequential(
            *conv_bn_relu(source, half, 1), *conv_bn(half, half, 3, stride, half), *conv_bn_relu(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        else:
            kept, changed = x.chunk(2, dim=1)
            out = torch.cat((kept, self.branch2(changed)), dim=1)
        return channel_shuffle(out, 2)


class ShuffleNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn_relu(3, 16)
        self.stage1 = nn.Sequential(ShuffleUnit(16, 32, 2), ShuffleUnit(32, 32, 1), ShuffleUnit(32, 32, 1))
        self.stage2 = nn.Sequential(ShuffleUnit(32, 64, 2), ShuffleUnit(64, 64, 1), ShuffleUnit(64, 64, 1))
        self.head = conv_bn_relu(64, 96, 1)
        self.fc = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.stage2(self.stage1(self.stem(x))))
        out: Tensor = self.fc(x.mean([2, 3]))
        return out


class GatedBlock(nn.Module):
    """Tan & Le 2019 (EfficientNet's MBConv): an inverted residual with SiLU and a squeeze-and-excitation by 1x1
    convolutions on the hidden channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = nn.Sequential(*conv_bn(inputs, hidden, 1), nn.SiLU(inplace=True)) if expansion > 1 else None
        self.depthwise = nn.Sequential(*conv_bn(hidden, hidden, kernel, stride, hidden), nn.SiLU(inplace=True))
        self.squeeze = nn.Conv2d(hidden, max(4, inputs // 4), 1)
        self.excite = nn.Conv2d(max(4, inputs // 4), hidden, 1)
        self.project = conv_bn(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x if self.expand is None else self.expand(x)
        out = self.depthwise(out)
        gate = self.excite(F.silu(self.squeeze(out.mean((2, 3), keepdim=True))))
        out = self.project(out * gate.sigmoid())
        return out + x if self.residual else out


class EfficientNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 8), nn.SiLU(inplace=True))
        settings = [(8, 8, 3, 1, 1), (8, 16, 3, 2, 4), (16, 16, 3, 1, 4), (16, 24, 5, 2, 4), (24, 24, 5, 1, 4)]
        self.blocks = nn.Sequential(*(GatedBlock(*setting) for setting in settings))
        self.head = nn.Sequential(*conv_bn(24, 64, 1), nn.SiLU(inplace=True))
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.head(self.blocks(self.stem(x))))
        return out


FAMILIES = (
    Family("mobilenet_v1", MobileNetV1, images(3, 32)),
    Family("mobilenet_v2", MobileNetV2, images(3, 32)),
    Family("shufflenet_v2", ShuffleNetV2, images(3, 32)),
    Family("efficientnet", EfficientNet, images(3, 32)),
)

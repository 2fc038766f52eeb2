"""Convolutional networks for images of 3 x 32 x 32 (LeNet: 1 x 28 x 28), a segmentation network and one for speech."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from benchmarks.families.family import Family, floats, images


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def conv_bn_relu(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(*conv_bn(inputs, outputs, kernel, stride, groups), nn.ReLU(inplace=True))


class LeNet(nn.Module):
    """LeCun et al. 1998: tanh, average pooling, three fully connected layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * 5 * 5, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.features(x))
        return out


class Vgg(nn.Module):
    """Simonyan & Zisserman 2015, with batch norm; flatten of (channels, height, width) into two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in (16, 16, 0, 32, 32, 0, 48, 48, 0):
            if width == 0:
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            inputs = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(48 * 4 * 4, 64), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(64, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return out


class BasicBlock(nn.Module):
    """He et al. 2015. option: of the shortcut where the shape changes; A takes every second pixel and pads channels
    with zeros, B projects by a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        changes = stride != 1 or inputs != outputs
        self.padding = (outputs - inputs) // 2 if changes and option == "A" else 0
        self.downsample = conv_bn(inputs, outputs, 1, stride) if changes and option == "B" else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.padding:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(out + x)


class ResNet(nn.Module):
    def __init__(self, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(*(BasicBlock(8, 8, 1, option) for _ in range(2)))
        self.layer2 = nn.Sequential(BasicBlock(8, 16, 2, option), BasicBlock(16, 16, 1, option))
        self.layer3 = nn.Sequential(BasicBlock(16, 32, 2, option), BasicBlock(32, 32, 1, option))
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        out: Tensor = self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return out


class PreActBlock(nn.Module):
    """He et al. 2016: norm and ReLU before each convolution; a projection reads the activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        if self.shortcut is not None:
            x = self.shortcut(activated)
        out: Tensor = x + self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return out


class PreActResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        widths = [(8, 8, 1), (8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1)]
        self.blocks = nn.Sequential(*(PreActBlock(*width) for width in widths))
        self.norm = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.blocks(self.conv(x))))
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


class DenseLayer(nn.Module):
    """Huang et al. 2017 (DenseNet-BC): a bottleneck over everything before it, its result appended."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 2 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * growth)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, new], 1)


class DenseNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        growth, width = 8, 16
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False)]
        for last in (False, False, True):
            for _ in range(3):
                layers.append(DenseLayer(width, growth))
                width += growth
            layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            if not last:
                layers += [nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2, 2)]
                width //= 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(F.adaptive_avg_pool2d(self.features(x), (1, 1)).flatten(1))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 in groups (ResNeXt, Xie et al. 2017), 1x1; with `gate` a squeeze-and-excitation of the result (Hu et
    al. 2018) before the sum."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, groups: int, gate: int = 0) -> None:
        super().__init__()
        self.reduce = conv_bn_relu(inputs, width, 1)
        self.spatial = conv_bn_relu(width, width, 3, stride, groups)
        self.restore = conv_bn(width, outputs, 1)
        self.gate = SqueezeExcite(outputs, gate) if gate else None
        changes = stride != 1 or inputs != outputs
        self.shortcut = conv_bn(inputs, outputs, 1, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.restore(self.spatial(self.reduce(x)))
        if self.gate is not None:
            out = self.gate(out)
        return F.relu(out + self.shortcut(x))


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate that two linear layers compute from the channels' means."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, reduced)
        self.fc2 = nn.Linear(reduced, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _, _ = x.shape
        gate = F.adaptive_avg_pool2d(x, 1).view(batch, channels)
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(gate)))).view(batch, channels, 1, 1)
        return x * gate.expand_as(x)


class BottleneckNet(nn.Module):
    """groups=4: ResNeXt; gates: SENet."""

    def __init__(self, groups: int, gate: int) -> None:
        super().__init__()
        self.stem = conv_bn_relu(3, 16)
        self.stage1 = nn.Sequential(Bottleneck(16, 16, 32, 1, groups, gate), Bottleneck(32, 16, 32, 1, groups, gate))
        self.stage2 = nn.Sequential(Bottleneck(32, 32, 64, 2, groups, gate), Bottleneck(64, 32, 64, 1, groups, gate))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(torch.flatten(self.pool(self.stage2(self.stage1(self.stem(x)))), 1))
        return out


class Inception(nn.Module):
    """Szegedy et al. 2015: four branches side by side, joined along the channels."""

    def __init__(self, inputs: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int) -> None:
        super().__init__()
        self.branch1 = conv_bn_relu(inputs, one, 1)
        self.branch2 = nn.Sequential(conv_bn_relu(inputs, three[0], 1), conv_bn_relu(three[0], three[1], 3))
        self.branch3 = nn.Sequential(conv_bn_relu(inputs, five[0], 1), conv_bn_relu(five[0], five[1], 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), conv_bn_relu(inputs, pool, 1))
        self.outputs = one + three[1] + five[1] + pool

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn_relu(3, 16)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.inception_a = Inception(16, 8, (8, 16), (4, 8), 8)
        self.inception_b = Inception(40, 16, (12, 24), (4, 8), 8)
        self.inception_c = Inception(56, 16, (16, 32), (4, 8), 8)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.inception_b(self.inception_a(self.pool(self.stem(x)))))
        x = self.inception_c(x)
        out: Tensor = self.fc(self.dropout(F.adaptive_avg_pool2d(x, 1).flatten(1)))
        return out


class UNet(nn.Module):
    """Ronneberger et al. 2015: three resolutions, skips by concatenation; up once by transposed convolution, once by
    bilinear interpolation. Scores per pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = self._double(3, 8)
        self.down2 = self._double(8, 16)
        self.bottom = self._double(16, 32)
        self.up2 = nn.ConvTranspose2d(32, 16, 2, 2)
        self.fuse2 = self._double(32, 16)
        self.up1 = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(16, 8, 1))
        self.fuse1 = self._double(16, 8)
        self.out = nn.Conv2d(8, 4, 1)

    @staticmethod
    def _double(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(conv_bn_relu(inputs, outputs), conv_bn_relu(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        skip1 = self.down1(x)
        skip2 = self.down2(F.max_pool2d(skip1, 2))
        x = self.bottom(F.max_pool2d(skip2, 2))
        x = self.fuse2(torch.cat([skip2, self.up2(x)], dim=1))
        x = self.fuse1(torch.cat([skip1, self.up1(x)], dim=1))
        out: Tensor = self.out(x)
        return out


class SpeechBlock(nn.Module):
    """Kriman et al. 2020 (QuartzNet): depthwise and pointwise convolution along time, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, 9, padding="same", groups=channels, bias=False)
        self.pointwise = nn.Conv1d(channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.pointwise(self.depthwise(x))))


class SpeechCnn(nn.Module):
    """Convolutions over a raw waveform (M5, Dai et al. 2017), then separable ones."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, 16, 80, stride=4)
        self.bn1 = nn.BatchNorm1d(16)
        self.conv2 = nn.Conv1d(16, 32, 3)
        self.bn2 = nn.BatchNorm1d(32)
        self.blocks = nn.Sequential(SpeechBlock(32), SpeechBlock(32))
        self.conv3 = nn.Conv1d(32, 48, 3, dilation=2)
        self.bn3 = nn.BatchNorm1d(48)
        self.fc = nn.Linear(48, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(F.relu(self.bn1(self.conv1(x))), 4)
        x = F.max_pool1d(F.relu(self.bn2(self.conv2(x))), 4)
        x = F.relu(self.bn3(self.conv3(self.blocks(x))))
        x = F.avg_pool1d(x, x.shape[-1])
        out: Tensor = self.fc(x.squeeze(-1))
        return out


FAMILIES = (
    Family("lenet", LeNet, images(1, 28)),
    Family("vgg", Vgg, images(3, 32)),
    Family("resnet_a", lambda: ResNet("A"), images(3, 32)),
    Family("resnet_b", lambda: ResNet("B"), images(3, 32)),
    Family("preact_resnet", PreActResNet, images(3, 32)),
    Family("densenet", DenseNet, images(3, 32)),
    Family("resnext", lambda: BottleneckNet(groups=4, gate=0), images(3, 32)),
    Family("senet", lambda: BottleneckNet(groups=1, gate=8), images(3, 32)),
    Family("googlenet", GoogLeNet, images(3, 32), task="multi_label"),
    Family("unet", UNet, images(3, 32), task="segmentation", output="map"),
    Family("speech_cnn", SpeechCnn, floats(1, 1600)),
)

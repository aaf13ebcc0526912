"""The network of the code released with the paper, written again for tests: its names of tensors, plain PyTorch.

Nothing here is of the library. Images come normalised, and scores leave at the size of the first stage's features.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def conv(inside: int, outside: int, size: int, *, stride: int = 1, dilation: int = 1, bias: bool = False) -> nn.Conv2d:
    padding = dilation if size == 3 else 0
    return nn.Conv2d(inside, outside, size, stride=stride, padding=padding, dilation=dilation, bias=bias)


class Bottleneck(nn.Module):
    grows = 4

    def __init__(self, inside: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inside, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride=stride, dilation=dilation), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if inside != 4 * width or stride != 1:
            self.downsample = nn.Sequential(conv(inside, 4 * width, 1, stride=stride), nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class BasicBlock(nn.Module):
    grows = 1

    def __init__(self, inside: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(inside, width, 3, stride=stride, dilation=dilation), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, dilation=dilation), nn.BatchNorm2d(width)
        self.downsample = None
        if inside != width or stride != 1:
            self.downsample = nn.Sequential(conv(inside, width, 1, stride=stride), nn.BatchNorm2d(width))


class Encoder(nn.Module):
    def __init__(self, depth: int, output_stride: int) -> None:
        super().__init__()
        block = Bottleneck if depth >= 50 else BasicBlock
        self.conv1 = nn.Sequential(
            *(conv(3, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU()),
            *(conv(64, 64, 3), nn.BatchNorm2d(64), nn.ReLU()),
            conv(64, 128, 3),
        )
        self.bn1 = nn.BatchNorm2d(128)
        one, two, three, four = DEPTHS[depth]
        last = (2, 2, 4)[:four]
        if output_stride == 8:  # both last stages keep the size; their first block still has the dilation before
            strides, third, fourth = (1, 2, 1, 1), [1] + [2] * (three - 1), [2 * last[0], *(4 * g for g in last[1:])]
        else:
            strides, third, fourth = (1, 2, 2, 1), [1] * three, [last[0], *(2 * g for g in last[1:])]
        dilations = ([1] * one, [1] * two, third, fourth)
        inside = 128
        for stage, (width, stride, rates) in enumerate(zip((64, 128, 256, 512), strides, dilations, strict=True), 1):
            blocks = []
            for index, rate in enumerate(rates):
                blocks.append(block(inside, width, stride if index == 0 else 1, rate))
                inside = block.grows * width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
        first = self.layer1(x)
        third = self.layer3(self.layer2(first))
        return first, third, self.layer4(third)


class ASPP(nn.Module):
    def __init__(self, inside: int, width: int, rates: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(inside, width, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.conv2 = nn.Sequential(conv(inside, width, 1), nn.BatchNorm2d(width), nn.ReLU())
        for number, rate in enumerate(rates, 3):
            branch = nn.Sequential(conv(inside, width, 3, dilation=rate), nn.BatchNorm2d(width), nn.ReLU())
            setattr(self, f"conv{number}", branch)

    def forward(self, x: Tensor) -> Tensor:
        average = F.interpolate(self.conv1(x), size=x.shape[-2:], mode="bilinear", align_corners=True)
        return torch.cat([average, self.conv2(x), self.conv3(x), self.conv4(x), self.conv5(x)], dim=1)


def pixel_head(inside: int, width: int, outside: int) -> nn.Sequential:
    first = (conv(inside, width, 3, bias=True), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout2d(0.1))
    second = (conv(width, width, 3, bias=True), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout2d(0.1))
    return nn.Sequential(*first, *second, conv(width, outside, 1, bias=True))


class Decoder(nn.Module):
    def __init__(self, low: int, high: int, width: int, classes: int, embedding: int | None, rates: tuple) -> None:
        super().__init__()
        self.low_conv = nn.Sequential(conv(low, width, 1, bias=True), nn.BatchNorm2d(width), nn.ReLU())
        self.aspp = ASPP(high, width, rates)
        self.head = nn.Sequential(conv(5 * width, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout2d(0.1))
        self.classifier = pixel_head(2 * width, width, classes)
        self.representation = None if embedding is None else pixel_head(2 * width, width, embedding)


class Auxiliary(nn.Module):
    def __init__(self, inside: int, width: int, classes: int) -> None:
        super().__init__()
        layers = (conv(inside, width, 3, bias=True), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout2d(0.1))
        self.aux = nn.Sequential(*layers, conv(width, classes, 1, bias=True))


class ReleasedNetwork(nn.Module):
    """Normalised images (B, 3, H, W) -> ``pred``, ``rep`` and ``aux`` at the stride of their features."""

    def __init__(
        self,
        *,
        depth: int,
        classes: int,
        width: int = 256,
        embedding: int | None = 256,
        auxiliary: bool = True,
        output_stride: int = 8,
    ) -> None:
        super().__init__()
        grows = 4 if depth >= 50 else 1
        rates = (12, 24, 36) if output_stride == 8 else (6, 12, 18)
        self.encoder = Encoder(depth, output_stride)
        self.decoder = Decoder(64 * grows, 512 * grows, width, classes, embedding, rates)
        self.auxor = Auxiliary(256 * grows, width, classes) if auxiliary else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        first, third, fourth = self.encoder(x)
        low, high = self.decoder.low_conv(first), self.decoder.head(self.decoder.aspp(fourth))
        high = F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=True)
        pixels = torch.cat([low, high], dim=1)
        outputs = {"pred": self.decoder.classifier(pixels)}
        if self.decoder.representation is not None:
            outputs["rep"] = self.decoder.representation(pixels)
        if self.auxor is not None:
            outputs["aux"] = self.auxor.aux(third)
        return outputs


@torch.no_grad()
def randomised(network: nn.Module, seed: int) -> nn.Module:
    """Random weights that keep the signal's size, and random statistics in every normalisation; to be evaluated."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                tensor.normal_(0, 0.1, generator=generator)
            for tensor in (module.running_var, module.weight):
                tensor.uniform_(0.7, 1.4, generator=generator)
            module.num_batches_tracked.random_(1, 10_000, generator=generator)
    for module in network.modules():
        if isinstance(module, Bottleneck):
            module.bn3.weight *= 0.2  # many blocks add up
    return network.eval()


def network(seed: int, **options: object) -> ReleasedNetwork:
    torch.manual_seed(seed)
    return randomised(ReleasedNetwork(**options), seed)  # type: ignore[arg-type, return-value]


def save_checkpoint(path: Path, student: nn.Module, teacher: nn.Module | None) -> Path:
    """What the release saves: state dicts of networks wrapped for distributed training, and a numpy score."""

    def wrapped(network: nn.Module) -> dict[str, Tensor]:
        wrapper = nn.Module()
        wrapper.module = network
        return wrapper.state_dict()

    parameters = student.decoder.classifier.parameters()
    optimizer = torch.optim.SGD([{"params": parameters, "lr": 0.01}], lr=0.1, momentum=0.9)
    for parameter in student.decoder.classifier.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    content = {"epoch": 80, "model_state": wrapped(student), "optimizer_state": optimizer.state_dict()}
    if teacher is not None:
        content["teacher_state"] = wrapped(teacher)
    torch.save({**content, "best_miou": np.mean(np.array([0.7, 0.8]))}, path)
    return path

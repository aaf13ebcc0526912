"""ResNets with dilated last stages, built from timm's blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from u2pl.errors import InputError

#: Block, number of blocks per stage, and whether the stem is deep by default.
RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int], bool]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), False),
    "resnet34": (BasicBlock, (3, 4, 6, 3), False),
    "resnet50": (Bottleneck, (3, 4, 6, 3), True),
    "resnet101": (Bottleneck, (3, 4, 23, 3), True),
}


class Features(NamedTuple):
    """The encoder features that the DeepLab heads use."""

    low: Tensor  #: (B, C1, H/4, W/4), the first stage
    middle: Tensor  #: (B, C3, H/os, W/os), the third stage
    high: Tensor  #: (B, C4, H/os, W/os), the last stage


class ResNetEncoder(nn.Module):
    """A ResNet (He et al. 2016) without its classifier, with output stride 8 or 16.

    Parameters are named as in torchvision (``conv1``, ``bn1``, ``layer1.0.conv1``, ...), so that its state dicts load.
    The deep stem replaces the 7x7 convolution with three 3x3 convolutions of 64, 64 and 128 channels (``conv1.0``,
    ``conv1.3``, ``conv1.6``), as in PSPNet (Zhao et al. 2017) and in the U2PL release.
    """

    def __init__(
        self,
        *,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        output_stride: int,
        deep_stem: bool,
        multi_grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        trunk = ResNet(
            block,  # type: ignore[arg-type]  # timm annotates an instance but takes the class
            tuple(layers),  # type: ignore[arg-type]
            num_classes=0,
            output_stride=output_stride,
            stem_type="deep" if deep_stem else "",
            zero_init_last=False,  # matters only without ImageNet weights, which the release always loads
        )
        self.conv1: nn.Module = trunk.conv1
        self.bn1: nn.Module = trunk.bn1
        self.act1: nn.Module = trunk.act1
        # The released network pools with ceil_mode, so its maps are one row and column larger on even sizes.
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=deep_stem)
        self.layer1 = trunk.get_submodule("layer1")
        self.layer2 = trunk.get_submodule("layer2")
        self.layer3 = trunk.get_submodule("layer3")
        self.layer4 = trunk.get_submodule("layer4")
        if multi_grid is not None:
            _multiply_dilations(self.layer4, multi_grid)
        self.low_channels, self.middle_channels, self.high_channels = (c * block.expansion for c in (64, 256, 512))

    def forward(self, x: Tensor) -> Features:
        """Normalised images (B, 3, H, W) -> features of the first, third and last stage."""
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        low = self.layer1(x)
        middle = self.layer3(self.layer2(low))
        return Features(low=low, middle=middle, high=self.layer4(middle))


def resnet_encoder(
    name: str, *, output_stride: int, deep_stem: bool | None = None, multi_grid: Sequence[int] | None = None
) -> ResNetEncoder:
    """Build one of ``RESNETS`` with dilations instead of the last strides.

    Args:
        name: resnet18, resnet34, resnet50 or resnet101.
        output_stride: 8 (stages 3 and 4 dilated) or 16 (stage 4 dilated).
        deep_stem: three 3x3 convolutions instead of the 7x7 one. None: deep for resnet50 and resnet101.
        multi_grid: dilation factor of each block in the last stage (Chen et al. 2017, arXiv 1706.05587).
            None: the release's (2, 2, 4) for resnet50 and resnet101 at output stride 8, otherwise all ones.
    """
    if name not in RESNETS:
        raise InputError(
            f"network.encoder: deeplabv3plus has no encoder {name!r}, but {', '.join(RESNETS)}; others need "
            "network.name=smp"
        )
    if output_stride not in (8, 16):
        raise InputError(f"network.output_stride: must be 8 or 16, not {output_stride}")
    block, layers, deep = RESNETS[name]
    if multi_grid is None and output_stride == 8 and block is Bottleneck:
        multi_grid = (2, 2, 4)
    if multi_grid is not None and (len(multi_grid) != layers[-1] or min(multi_grid) < 1):
        raise InputError(
            f"network.multi_grid: the last stage of {name} has {layers[-1]} blocks and needs as many positive "
            f"factors, not {list(multi_grid)}"
        )
    return ResNetEncoder(
        block=block,
        layers=layers,
        output_stride=output_stride,
        deep_stem=deep if deep_stem is None else deep_stem,
        multi_grid=multi_grid,
    )


def _multiply_dilations(stage: nn.Module, factors: Sequence[int]) -> None:
    """Multiply the dilation of each block's 3x3 convolutions, and adjust the padding to keep the size."""
    for block, factor in zip(stage.children(), factors, strict=True):
        for module in block.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.dilation = (module.dilation[0] * factor, module.dilation[1] * factor)
                module.padding = module.dilation

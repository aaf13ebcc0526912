"""Keys of `network`: its shape, and where its encoder's weights come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from u2pl.config.fields import Auto, Section
from u2pl.structures import Positive, Share


class NetworkConfig(Section):
    """The network, and where its encoder's weights come from. Unset keys are chosen by the network's builder."""

    name: Auto[Literal["deeplabv3plus", "smp"]] = "deeplabv3plus"
    """`deeplabv3plus` is the paper's; `smp` is any of segmentation_models_pytorch"""
    encoder: str = "resnet18"
    """resnet18, 34, 50 or 101; with `smp` any of its names, or `tu-` and a name of timm"""
    architecture: Auto[str | None] = None
    """of `smp`: Unet, FPN, Segformer, DPT, ...; null: Unet"""
    output_stride: Literal[8, 16, 32] | None = None
    """input pixels per pixel of the encoder's output; null: 16 for deeplabv3plus"""
    deep_stem: bool | None = None
    """three 3x3 convolutions in place of the 7x7 one; null: for resnet50 and resnet101"""
    multi_grid: list[int] | None = None
    """a factor of the dilation for each block of the last stage; null: 2, 2, 4 at output stride 8"""
    aspp_dilations: list[int] | None = None
    """of ASPP; null: 12, 24, 36 at output stride 8, else 6, 12, 18"""
    channels: Positive | None = None
    """width of the decoder; null: 256, with `smp` the architecture's"""
    low_level_channels: Positive | None = None
    """width of the low-level features; null: 256"""
    embedding_dim: Positive = 256
    """length of a pixel's embedding, for methods with a contrast"""
    auxiliary: bool | None = None
    """a second classifier on the third stage, in training only"""
    dropout: Share | None = None
    """probability of dropping a channel in the heads; null: 0.1"""
    mean: list[float] | None = Field(None, min_length=3, max_length=3)
    """RGB mean of images in 0 to 1; null: ImageNet's, or that of the weights"""
    std: Annotated[list[Annotated[float, Field(gt=0)]] | None, Field(min_length=3, max_length=3)] = None
    """RGB standard deviation, likewise"""
    pretrained: bool = False
    """fetch the encoder's published weights; needs a network connection once"""
    weights: str | None = None
    """local file of the encoder's weights (safetensors, pt, pth); wins over `pretrained`"""

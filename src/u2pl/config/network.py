"""Keys of `network`: its structure, and the source of its encoder's weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from u2pl.config.fields import A_PATH, Auto, Section
from u2pl.structures import Width

_InImage = Annotated[float, Field(ge=0, le=1)]
_Spread = Annotated[float, Field(ge=1e-3, le=1)]
_Dilations = Annotated[list[Annotated[int, Field(gt=0, le=256)]], Field(min_length=1, max_length=16)]


class NetworkConfig(Section):
    """The network, and the source of its encoder's weights. The network's builder chooses unset keys."""

    name: Auto[Literal["deeplabv3plus", "smp"]] = "deeplabv3plus"
    """`deeplabv3plus`: the paper's network; `smp`: a network of segmentation_models_pytorch"""
    encoder: Auto[Annotated[str, Field(max_length=200)]] = "resnet18"
    """resnet18, 34, 50 or 101; with `smp` any of its encoders, or `tu-` and the name of a timm model"""
    architecture: Auto[str | None] = None
    """architecture of `smp`, such as Unet, FPN, Segformer or DPT; null: Unet"""
    output_stride: Literal[8, 16, 32] | None = None
    """input pixels per pixel of the encoder's output; null: 16, with `smp` the architecture's default"""
    deep_stem: bool | None = None
    """start with three 3x3 convolutions instead of one 7x7; null: only for resnet50 and resnet101"""
    multi_grid: _Dilations | None = None
    """factor of the dilation for each block of the last stage; null: 2, 2, 4 at output stride 8, else 1"""
    aspp_dilations: _Dilations | None = None
    """dilations of ASPP; null: 12, 24, 36 at output stride 8, else 6, 12, 18"""
    channels: Width | None = None
    """width of the decoder; null: 256, with `smp` the architecture's default"""
    low_level_channels: Width | None = None
    """width of the low-level features; null: 256"""
    embedding_dim: Width = 256
    """length of a pixel embedding, for methods with a contrast"""
    auxiliary: bool | None = None
    """add a second classifier on the third stage, in training only; null: no"""
    dropout: float | None = Field(None, ge=0, lt=1)
    """probability of dropping a channel in the heads; null: 0.1"""
    mean: Annotated[list[_InImage] | None, Field(min_length=3, max_length=3)] = None
    """RGB mean of images in [0, 1]; null: of the fetched weights or of a `tu-` encoder, else ImageNet's"""
    std: Annotated[list[_Spread] | None, Field(min_length=3, max_length=3)] = None
    """RGB standard deviation of images in [0, 1]; null: as for `network.mean`"""
    pretrained: Auto[bool] = False
    """fetch the encoder's published weights, once; `auto`: if they can be had and `network.weights` is not set"""
    weights: Annotated[str | None, A_PATH] = None
    """local file of the encoder's weights (safetensors, pt, pth), replaces `pretrained`; null: none"""
    start_from: Annotated[str | None, A_PATH] = None
    """run folder or .safetensors file to go on from: the whole network, its classes matched by name; null: none"""
    freeze: Annotated[int, Field(ge=1, le=1000)] | bool = False
    """keep these weights: true: the whole encoder; N: its first N stages, one for each of its feature maps"""

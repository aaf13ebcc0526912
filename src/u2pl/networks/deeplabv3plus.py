"""The paper's network: DeepLabv3+ (Chen et al. 2018, arXiv 1802.02611) with a projection head.

Convolutions are plain, not separable, as in the U2PL release (Wang et al. 2022, arXiv 2203.03884).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.errors import InputError
from u2pl.networks.encoded import Encoded
from u2pl.networks.freezing import FreezableNetwork
from u2pl.networks.image_encoder import ImageEncoder
from u2pl.networks.normalization import IMAGENET_MEAN, IMAGENET_STD, Normalize, PooledBatchNorm2d
from u2pl.networks.perturbation import append_dropped, complementary_dropout
from u2pl.networks.places import on_corners
from u2pl.networks.resnet import Features, ResNetEncoder, resnet_encoder
from u2pl.networks.vocabulary import Vocabulary, vocabulary_of
from u2pl.networks.weights import fetch_resnet_weights, load_encoder_weights
from u2pl.structures import SegmentationOutput


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017, arXiv 1706.05587): five branches on one feature map.

    Concatenates the image's average, a 1x1 convolution and three dilated 3x3 convolutions, in this order.
    """

    def __init__(self, in_channels: int, *, channels: int = 256, dilations: Sequence[int] = (12, 24, 36)) -> None:
        super().__init__()
        self.image_pooling = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, channels, kernel_size=1, bias=False),
            PooledBatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.pointwise = _conv_bn_relu(in_channels, channels, kernel_size=1, bias=False)
        self.atrous = nn.ModuleList(
            _conv_bn_relu(in_channels, channels, kernel_size=3, dilation=dilation, bias=False) for dilation in dilations
        )
        self.out_channels = (2 + len(self.atrous)) * channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, (2 + dilations) * channels, h, w)."""
        pooled = self.image_pooling(x).expand(-1, -1, *x.shape[-2:])
        return torch.cat((pooled, self.pointwise(x), *(branch(x) for branch in self.atrous)), dim=1)


class DeepLabV3PlusDecoder(nn.Module):
    """Encoder features -> pixel features at stride 4: low-level features and the upsampled output of ASPP."""

    def __init__(
        self,
        *,
        aspp: ASPP,
        low_in_channels: int,
        low_level_channels: int = 256,
        channels: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.low_level = _conv_bn_relu(low_in_channels, low_level_channels, kernel_size=1)
        self.aspp = aspp
        self.head = nn.Sequential(
            *_conv_bn_relu(aspp.out_channels, channels, kernel_size=3, bias=False), nn.Dropout2d(dropout)
        )
        self.out_channels = low_level_channels + channels

    def forward(self, features: Features) -> Tensor:
        """Features -> (B, low_level_channels + channels, H/4, W/4)."""
        low = self.low_level(features.low)
        context = self.head(self.aspp(features.high))
        return torch.cat((low, _resize(context, low.shape[-2:])), dim=1)


class DeepLabV3Plus(FreezableNetwork):
    """DeepLabv3+, built from encoder, decoder and pixel heads.

    Args:
        normalize: images in [0, 1] -> images normalised as in the encoder's training.
        encoder: images -> :class:`Features`.
        decoder: features -> pixel features (B, K, h, w) at stride 4.
        classifier: pixel features -> class scores (B, C, h, w); the paper's f.
        projection: pixel features -> embeddings (B, D, h, w); the paper's g. None for methods without contrast.
        auxiliary: features of the third stage -> class scores, for an additional loss in training.
        classification: features of the last stage -> scores (B, C - 1, h, w) of all classes except the background.
            None for methods that do not learn from image-level tags.
        vocabulary: classifier that comes with the encoder's initial weights, if any.
    """

    multiple = 32  #: if both sides are multiples of this, the encoder's maps cover the image exactly

    def __init__(
        self,
        *,
        normalize: nn.Module,
        encoder: ResNetEncoder,
        decoder: nn.Module,
        classifier: nn.Module,
        projection: nn.Module | None = None,
        auxiliary: nn.Module | None = None,
        classification: nn.Module | None = None,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.encoder = encoder
        self.decoder = decoder
        self.classifier = classifier
        self.projection = projection
        self.auxiliary = auxiliary
        self.classification = classification
        self.vocabulary = vocabulary
        self.corners = on_corners(encoder)

    def encode(self, image: Tensor) -> Encoded:
        """(B, 3, H, W) in [0, 1] -> :class:`Features`."""
        size = image.shape[-2:]
        return Encoded(self.encoder(self.normalize(image)), size=size, padded=size)

    def last_features(self, encoded: Encoded) -> Tensor:
        """The encoder's last features (B, K, h, w) of the images."""
        return encoded.features.high

    def forward(self, image: Tensor | Encoded, *, dropped: int = 0, complementary: int = 0) -> SegmentationOutput:
        """(B, 3, H, W) in [0, 1] -> class scores (B, C, H, W); coarse scores and embeddings (B, ., H/4, W/4).

        Instead of images it takes what :meth:`encode` made of them. The last ``dropped`` images are appended a second
        time, decoded from features with half of the channels dropped. The last ``complementary`` images are second
        views of as many images before them: each decodes the channels that the other lacks.
        """
        encoded = image if isinstance(image, Encoded) else self.encode(image)
        plain, size = encoded.features, encoded.size
        features: Features = append_dropped(complementary_dropout(plain, complementary), dropped)
        pixels = self.decoder(features)
        coarse = self.classifier(pixels)
        auxiliary = None
        if self.auxiliary is not None and self.training:
            auxiliary = _resize(self.auxiliary(features.middle), size)
        return SegmentationOutput(
            logits=_resize(coarse, size),
            coarse=coarse,
            embedding=None if self.projection is None else self.projection(pixels),
            auxiliary=auxiliary,
            activation=None if self.classification is None else self.classification(plain.high),
        )

    def activate(self, image: Tensor) -> Tensor:
        """(B, C - 1, h, w): only the ``activation`` of :meth:`forward`, without the decoder."""
        assert self.classification is not None
        return self.classification(self.encoder(self.normalize(image)).high)

    def image_encoder(self) -> ImageEncoder:
        """A copy of the encoder in its current state, to describe whole images."""
        return ImageEncoder(
            normalize=self.normalize, encoder=self.encoder, last=attrgetter("high"), vocabulary=self.vocabulary
        )

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that start from pretrained weights and train at the base learning rate."""
        return self.encoder.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """All other parameters, which start from scratch and train at a higher rate."""
        heads = (self.decoder, self.classifier, self.projection, self.auxiliary, self.classification)
        return chain.from_iterable(head.parameters() for head in heads if head is not None)


def deeplabv3plus(
    *,
    num_classes: int,
    encoder: str = "resnet101",
    deep_stem: bool | None = None,
    output_stride: int = 16,
    multi_grid: Sequence[int] | None = None,
    aspp_dilations: Sequence[int] | None = None,
    channels: int = 256,
    low_level_channels: int = 256,
    embedding_dim: int | None = 256,
    auxiliary: bool = False,
    classification: bool = False,
    dropout: float = 0.1,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    pretrained: bool = False,
    weights: Path | str | None = None,
) -> DeepLabV3Plus:
    """Build DeepLabv3+. The paper uses ``deeplabv3plus(num_classes=C, output_stride=8)`` with ImageNet weights.

    Args:
        num_classes: C.
        encoder: resnet18, resnet34, resnet50 or resnet101.
        deep_stem, multi_grid: see :func:`u2pl.networks.resnet.resnet_encoder`.
        output_stride: of the encoder, 8 or 16.
        aspp_dilations: None means (12, 24, 36) at output stride 8 and (6, 12, 18) at 16.
        channels: width of ASPP, of the decoder and of the heads.
        low_level_channels: width of the low-level features; 256 in the paper, 48 in DeepLabv3+.
        embedding_dim: D, or None for no projection head.
        auxiliary: add a second classifier on the third stage, used in training only.
        classification: add a classification head on the last stage, for training on image-level tags.
        dropout: probability of dropping a channel in the heads.
        mean, std: of the encoder's training images, RGB in [0, 1].
        pretrained: fetch the encoder's ImageNet weights (GluonCV's ResNet-s for a deep stem).
        weights: a local file of the encoder's weights; overrides ``pretrained``.
    """
    trunk = resnet_encoder(encoder, output_stride=output_stride, deep_stem=deep_stem, multi_grid=multi_grid)
    beside: dict[str, Tensor] = {}
    if weights is not None:
        beside = load_encoder_weights(trunk, weights)
    elif pretrained:
        beside = fetch_resnet_weights(trunk, encoder)
    if aspp_dilations is None:
        aspp_dilations = (12, 24, 36) if output_stride == 8 else (6, 12, 18)
    elif not aspp_dilations or min(aspp_dilations) < 1:
        raise InputError(f"network.aspp_dilations: needs positive integers, not {list(aspp_dilations)}")
    decoder = DeepLabV3PlusDecoder(
        aspp=ASPP(trunk.high_channels, channels=channels, dilations=aspp_dilations),
        low_in_channels=trunk.low_channels,
        low_level_channels=low_level_channels,
        channels=channels,
        dropout=dropout,
    )
    return DeepLabV3Plus(
        normalize=Normalize(mean=mean, std=std),
        encoder=trunk,
        decoder=decoder,
        classifier=_pixel_head(decoder.out_channels, channels, num_classes, depth=2, dropout=dropout),
        projection=None
        if embedding_dim is None
        else _pixel_head(decoder.out_channels, channels, embedding_dim, depth=2, dropout=dropout),
        auxiliary=_pixel_head(trunk.middle_channels, channels, num_classes, depth=1, dropout=dropout)
        if auxiliary
        else None,
        classification=nn.Conv2d(trunk.high_channels, num_classes - 1, kernel_size=1, bias=False)
        if classification
        else None,
        vocabulary=vocabulary_of(beside, trunk.high_channels, trunk),
    )


def _pixel_head(in_channels: int, channels: int, out_channels: int, *, depth: int, dropout: float) -> nn.Sequential:
    """``depth`` times (3x3 convolution, batch norm, ReLU, dropout), then a 1x1 convolution."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [*_conv_bn_relu(in_channels, channels, kernel_size=3), nn.Dropout2d(dropout)]
        in_channels = channels
    return nn.Sequential(*layers, nn.Conv2d(channels, out_channels, kernel_size=1))


def _conv_bn_relu(
    in_channels: int, out_channels: int, *, kernel_size: int, dilation: int = 1, bias: bool = True
) -> nn.Sequential:
    # A bias before a normalisation is redundant; it is kept where the released weights have one.
    padding = dilation * (kernel_size // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=True)

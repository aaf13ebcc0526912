"""Networks from segmentation_models_pytorch: any of its architectures on any of its encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.errors import InputError
from u2pl.networks.encoded import Encoded
from u2pl.networks.freezing import FreezableNetwork
from u2pl.networks.image_encoder import ImageEncoder
from u2pl.networks.normalization import IMAGENET_MEAN, IMAGENET_STD, Normalize, PooledBatchNorm2d
from u2pl.networks.padding import pad, unpad
from u2pl.networks.perturbation import append_dropped, complementary_dropout
from u2pl.networks.places import on_corners
from u2pl.networks.smp_choices import (
    check_architecture,
    check_encoder,
    check_options,
    imagenet_tag,
    options_of,
    published_colours,
    width_options,
)
from u2pl.networks.summed_maps import SummedMaps
from u2pl.networks.transformers import SHORT_NAMES, create_dpt, dpt_multiple
from u2pl.networks.vocabulary import Vocabulary, vocabulary_of
from u2pl.networks.weights import fetch_classifier, fetching, load_encoder_weights
from u2pl.structures import SegmentationOutput

#: Smallest stride of embeddings and coarse scores: contrast at every pixel is expensive and gains little.
COARSE_STRIDE = 4


class SmpNetwork(FreezableNetwork):
    """A segmentation_models_pytorch model with a projection head on its decoder's features.

    Args:
        normalize: images in [0, 1] -> images normalised as in the encoder's training.
        model: a segmentation_models_pytorch model; its last layer is its ``segmentation_head``.
        projection: decoder features (B, K, h, w) -> embeddings (B, D, h, w). None for methods without contrast.
        classification: last encoder features (B, K, h, w) -> scores (B, C - 1, h, w) of all classes except the
            background. None for methods that do not learn from image-level tags.
        vocabulary: classifier that comes with the encoder's initial weights, if any.
        multiple: the model requires sides that are a multiple of this; images are padded.
        minimum: smallest side after padding.
    """

    def __init__(
        self,
        *,
        normalize: nn.Module,
        model: nn.Module,
        projection: nn.Module | None = None,
        classification: nn.Module | None = None,
        vocabulary: Vocabulary | None = None,
        multiple: int = 32,
        minimum: int = 1,
    ) -> None:
        super().__init__()
        self.multiple = multiple
        self.minimum = minimum
        self.normalize = normalize
        self.model = model
        self.projection = projection
        self.classification = classification
        self.vocabulary = vocabulary
        self.corners = on_corners(self.encoder)
        PooledBatchNorm2d.adopt(self.model.decoder)  # type: ignore[arg-type]
        SummedMaps.adopt(self.model.decoder)  # type: ignore[arg-type]

    @property
    def encoder(self) -> nn.Module:  # type: ignore[override]
        """The model's encoder: normalised images -> a list of features."""
        return self.model.encoder  # type: ignore[return-value]

    def encode(self, image: Tensor) -> Encoded:
        """(B, 3, H, W) in [0, 1] -> a list of features; encoders of DPT also return a transformer's prefix tokens."""
        padded = pad(self.normalize(image), multiple=self.multiple, minimum=self.minimum)
        return Encoded(self.encoder(padded), size=image.shape[-2:], padded=padded.shape[-2:])

    def last_features(self, encoded: Encoded) -> Tensor:
        """The encoder's last features (B, K, h, w) of the images, without those of their padding."""
        return unpad(_last(encoded.features), encoded.size, encoded.padded)

    def forward(self, image: Tensor | Encoded, *, dropped: int = 0, complementary: int = 0) -> SegmentationOutput:
        """(B, 3, H, W) in [0, 1] -> class scores (B, C, H, W); coarse scores and embeddings (B, ., h, w).

        Instead of images it takes what :meth:`encode` made of them. Coarse scores and embeddings have stride 4, or the
        decoder's stride if it is larger (8 for PSPNet). The last ``dropped`` images are appended a second time, decoded
        from features with half of the channels dropped. The last ``complementary`` images are second views of as many
        images before them: each decodes the channels that the other lacks.
        """
        encoded = image if isinstance(image, Encoded) else self.encode(image)
        (height, width), size = encoded.size, encoded.padded
        # The steps of the library's own forward pass.
        plain = append_dropped(complementary_dropout(encoded.features, complementary), dropped)
        features = self.model.decoder(*plain) if isinstance(plain, tuple) else self.model.decoder(plain)  # type: ignore[operator]
        logits = self.model.segmentation_head(features)  # type: ignore[operator]
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=True)
        coarse_size = [min(f, -(-s // COARSE_STRIDE)) for f, s in zip(features.shape[-2:], size, strict=True)]
        coarse = _average(logits, coarse_size)
        embedding = None if self.projection is None else self.projection(_average(features, coarse_size))
        return SegmentationOutput(
            logits=logits[..., :height, :width],
            coarse=unpad(coarse, encoded.size, size),
            embedding=None if embedding is None else unpad(embedding, encoded.size, size),
            activation=None if self.classification is None else self._classify(encoded),
        )

    def activate(self, image: Tensor) -> Tensor:
        """(B, C - 1, h, w): only the ``activation`` of :meth:`forward`, without the decoder."""
        return self._classify(self.encode(image))

    def image_encoder(self) -> ImageEncoder:
        """A copy of the encoder in its current state, to describe whole images."""
        return ImageEncoder(
            normalize=self.normalize,
            encoder=self.encoder,
            last=_last,
            vocabulary=self.vocabulary,
            multiple=self.multiple,
            minimum=self.minimum,
        )

    def _classify(self, encoded: Encoded) -> Tensor:
        """Scores at each position of the last features."""
        assert self.classification is not None
        return unpad(self.classification(_last(encoded.features)), encoded.size, encoded.padded)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that start from pretrained weights and train at the base learning rate."""
        return self.encoder.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """All other parameters, which start from scratch and train at a higher rate."""
        encoder = {id(parameter) for parameter in self.encoder_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in encoder)


def smp_network(
    *,
    num_classes: int,
    architecture: str = "Unet",
    encoder: str = "mobilenet_v2",
    output_stride: int | None = None,
    channels: int | None = None,
    embedding_dim: int | None = 256,
    classification: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pretrained: bool = False,
    weights: Path | str | None = None,
    **options: Any,
) -> SmpNetwork:
    """Build a segmentation_models_pytorch network.

    Args:
        num_classes: C.
        architecture: Unet, FPN, DeepLabV3Plus, Segformer, UPerNet, ... in upper or lower case.
        encoder: a name of segmentation_models_pytorch (``mobilenet_v2``), ``tu-`` and a name of timm, or one of
            ``SHORT_NAMES`` (``dinov2_small``).
        output_stride: of the encoder, for architectures with this option (DeepLabV3, DeepLabV3Plus, PAN).
        channels: width of the decoder, for architectures with a single width (FPN, DeepLabV3Plus, Segformer, ...).
            None: the default of segmentation_models_pytorch, which is wide for a small encoder.
        embedding_dim: D, or None for no projection head.
        classification: add a classification head on the encoder's last features, for training on image-level tags.
        mean, std: of the encoder's training images, RGB in [0, 1]. None: the values of the published weights if
            ``pretrained`` fetches them or the encoder is timm's, otherwise ImageNet's.
        pretrained: fetch the encoder's published weights.
        weights: a local file of the encoder's weights; overrides ``pretrained``.
        options: further options of the architecture in segmentation_models_pytorch (``decoder_channels=...``).
    """
    check_architecture(architecture)
    check_encoder(encoder)
    encoder = SHORT_NAMES.get(encoder, encoder)
    check_options(architecture, encoder, options)
    if channels is not None:
        options |= width_options(architecture, channels)
    if output_stride is not None:
        if "encoder_output_stride" not in options_of(architecture):
            raise InputError(f"network.output_stride: {architecture} does not support an output stride; leave it out")
        options["encoder_output_stride"] = output_stride
    tag = imagenet_tag(encoder) if pretrained and weights is None else None
    create: Callable[..., Any] = (
        create_dpt if architecture.lower() == "dpt" else partial(smp.create_model, architecture)
    )
    options |= {"encoder_name": encoder, "classes": num_classes}
    try:
        model = create(encoder_weights=None, **options)
    # Architectures and encoders raise different errors for what they do not support.
    except (ValueError, KeyError, TypeError, NotImplementedError, RuntimeError, AssertionError) as error:
        why = " ".join(str(error).split())[:300]
        if "vit_" in encoder and create is not create_dpt:
            why += " Plain vision transformers are for network.architecture=DPT"
        raise InputError(f"network.architecture: {architecture} cannot be built on encoder {encoder}: {why}") from error
    beside: dict[str, Tensor] = {}
    if weights is not None:
        beside = load_encoder_weights(model.encoder, weights)
        own_mean, own_std = published_colours(encoder)
        mean, std = mean or own_mean, std or own_std
    elif tag is not None:
        with fetching(encoder):
            settings = smp.encoders.get_preprocessing_params(encoder, tag)
            model = create(encoder_weights=tag, **options)
            beside = fetch_classifier(model.encoder, encoder, tag)
        mean = settings["mean"] if mean is None else mean
        std = settings["std"] if std is None else std
    stride = int(model.encoder.output_stride)
    width = next(m.in_channels for m in model.segmentation_head.modules() if isinstance(m, nn.Conv2d))
    return SmpNetwork(
        normalize=Normalize(
            mean=IMAGENET_MEAN if mean is None else mean,
            std=IMAGENET_STD if std is None else std,
        ),
        model=model,
        projection=None
        if embedding_dim is None
        else nn.Sequential(
            nn.Conv2d(width, embedding_dim, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(embedding_dim),
            nn.ReLU(inplace=True),
            nn.Conv2d(embedding_dim, embedding_dim, kernel_size=1),
        ),
        classification=nn.Conv2d(model.encoder.out_channels[-1], num_classes - 1, kernel_size=1, bias=False)
        if classification
        else None,
        vocabulary=vocabulary_of(beside, model.encoder.out_channels[-1], model.encoder),
        multiple=dpt_multiple(model.encoder) if architecture.lower() == "dpt" else stride,
        # PAN's pyramid halves the encoder's map three times; FPN normalises groups of more than one value.
        minimum={"pan": 8, "fpn": 2}.get(architecture.lower(), 0) * stride or 1,
    )


def _last(encoded: Any) -> Tensor:
    """The last features (B, K, h, w), without a transformer's prefix tokens."""
    features = encoded[0] if isinstance(encoded, tuple) else encoded
    return features[-1]


def _average(x: Tensor, size: Sequence[int]) -> Tensor:
    """Average pool (B, C, H, W) to a size; with equal windows if they fit, which is deterministic on CUDA."""
    height, width = x.shape[-2:]
    if (height, width) == tuple(size):
        return x
    if height % size[0] == 0 and width % size[1] == 0:
        return F.avg_pool2d(x, (height // size[0], width // size[1]))
    return F.adaptive_avg_pool2d(x, (size[0], size[1]))

"""Any architecture of segmentation_models_pytorch on any of its encoders, as a network of this library."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch.nn.functional as F
from torch import Tensor, nn

from u2pl.errors import InputError
from u2pl.networks.normalization import IMAGENET_MEAN, IMAGENET_STD, Normalize, PooledBatchNorm2d
from u2pl.networks.perturbation import append_dropped
from u2pl.networks.transformers import SHORT_NAMES, create_dpt, dpt_multiple
from u2pl.networks.weights import fetching, load_encoder_weights
from u2pl.structures import SegmentationOutput

#: Embeddings and coarse scores are never finer than this: contrast at every pixel costs much and adds little.
COARSE_STRIDE = 4


class SmpNetwork(nn.Module):
    """A segmentation_models_pytorch model with a projection head on its decoder's features.

    Args:
        normalize: images in [0, 1] -> what the encoder was trained with.
        model: of segmentation_models_pytorch; its last layer is its ``segmentation_head``.
        projection: decoder features (B, K, h, w) -> embeddings (B, D, h, w). None for methods without contrast.
        multiple: both sides of an image are padded to a multiple of this, which the model requires.
        minimum: and to at least this.
    """

    def __init__(
        self,
        *,
        normalize: nn.Module,
        model: nn.Module,
        projection: nn.Module | None = None,
        multiple: int = 32,
        minimum: int = 1,
    ) -> None:
        super().__init__()
        self.multiple = multiple
        self.minimum = minimum
        self.normalize = normalize
        self.model = model
        self.projection = projection
        PooledBatchNorm2d.adopt(self.model.decoder)  # type: ignore[arg-type]

    @property
    def encoder(self) -> nn.Module:
        """The model's encoder: normalised images -> a list of features."""
        return self.model.encoder  # type: ignore[return-value]

    def forward(self, image: Tensor, *, dropped: int = 0) -> SegmentationOutput:
        """(B, 3, H, W) in [0, 1] -> class scores (B, C, H, W); coarse scores and embeddings (B, ., h, w).

        Their stride is 4, or that of the decoder where it is coarser (8 for PSPNet). The last ``dropped`` images come
        out a second time, after all others, decoded from features of which half of the channels are dropped.
        """
        height, width = image.shape[-2:]
        padded = _pad(self.normalize(image), multiple=self.multiple, minimum=self.minimum)
        size = padded.shape[-2:]
        # What a model of the library does, step by step; the encoders of DPT also return a transformer's prefix tokens.
        encoded = append_dropped(self.encoder(padded), dropped)
        features = self.model.decoder(*encoded) if isinstance(encoded, tuple) else self.model.decoder(encoded)  # type: ignore[operator]
        logits = self.model.segmentation_head(features)  # type: ignore[operator]
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=True)
        coarse_size = [min(f, -(-s // COARSE_STRIDE)) for f, s in zip(features.shape[-2:], size, strict=True)]
        coarse = _average(logits, coarse_size)
        embedding = None if self.projection is None else self.projection(_average(features, coarse_size))
        # Padding was added at the bottom and the right: what belongs to the image is the upper left part.
        rows, columns = (-(-s * c // p) for s, c, p in zip((height, width), coarse_size, size, strict=True))
        return SegmentationOutput(
            logits=logits[..., :height, :width],
            coarse=coarse[..., :rows, :columns],
            embedding=None if embedding is None else embedding[..., :rows, :columns],
        )

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that start from ImageNet and train at the base learning rate."""
        return self.encoder.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """All other parameters: they start from scratch and train at a higher rate."""
        encoder = {id(parameter) for parameter in self.encoder_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in encoder)


def smp_network(
    *,
    num_classes: int,
    architecture: str = "Unet",
    encoder: str = "mobilenet_v2",
    output_stride: int | None = None,
    embedding_dim: int | None = 256,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pretrained: bool = False,
    weights: Path | str | None = None,
    **options: Any,
) -> SmpNetwork:
    """Build a segmentation_models_pytorch network.

    Args:
        num_classes: C.
        architecture: Unet, FPN, DeepLabV3Plus, Segformer, UPerNet, ... in any case of letters.
        encoder: a name of segmentation_models_pytorch (``mobilenet_v2``), ``tu-`` and a name of timm, or one of
            ``SHORT_NAMES`` (``dinov2_small``).
        output_stride: of the encoder, for the architectures that can choose it (DeepLabV3, DeepLabV3Plus, PAN).
        embedding_dim: D, or None for no projection head.
        mean, std: of the images the encoder was trained with, RGB in [0, 1]. None: those of the encoder's published
            weights when ``pretrained`` fetches them, otherwise ImageNet's.
        pretrained: fetch the encoder's published weights.
        weights: a local file of the encoder's weights; wins over ``pretrained``.
        options: of the architecture, as segmentation_models_pytorch calls them (``decoder_channels=...``).
    """
    _check_architecture(architecture)
    _check_encoder(encoder)
    encoder = SHORT_NAMES.get(encoder, encoder)
    _check_options(architecture, encoder, options)
    if output_stride is not None:
        if "encoder_output_stride" not in _options_of(architecture):
            raise InputError(f"network.output_stride: {architecture} has no such choice; leave it out")
        options["encoder_output_stride"] = output_stride
    tag = _imagenet_tag(encoder) if pretrained and weights is None else None
    create: Callable[..., Any] = (
        create_dpt if architecture.lower() == "dpt" else partial(smp.create_model, architecture)
    )
    options |= {"encoder_name": encoder, "classes": num_classes}
    try:
        model = create(encoder_weights=None, **options)
    except (ValueError, KeyError, TypeError, NotImplementedError, RuntimeError, AssertionError) as error:
        why = " ".join(str(error).split())[:300]
        if "vit_" in encoder and create is not create_dpt:
            why += " Plain vision transformers are for network.architecture=DPT"
        raise InputError(f"network.architecture: {architecture} cannot be built on encoder {encoder}: {why}") from error
    if weights is not None:
        load_encoder_weights(model.encoder, weights)
    elif tag is not None:
        with fetching(encoder):
            settings = smp.encoders.get_preprocessing_params(encoder, tag)
            model = create(encoder_weights=tag, **options)
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
        multiple=dpt_multiple(model.encoder) if architecture.lower() == "dpt" else stride,
        # PAN's pyramid halves the encoder's map three times.
        minimum=8 * stride if architecture.lower() == "pan" else 1,
    )


def _check_architecture(name: str) -> None:
    classes = {key: architecture.__name__ for key, architecture in smp.MODEL_ARCHITECTURES_MAPPING.items()}
    if name.lower() not in classes:
        near = [classes[key] for key in get_close_matches(name.lower(), classes, n=3)]
        raise InputError(f"network.architecture: no architecture {name!r}; {_hint(near, classes.values())}")


def _check_encoder(name: str) -> None:
    if not name.startswith("tu-"):
        known = list(smp.encoders.encoders)
    elif "." in name:  # the tag after the dot names trained weights; without one timm takes its default
        known = [f"tu-{model}" for model in timm.list_models(pretrained=True)]
    else:
        known = [f"tu-{model}" for model in timm.list_models()]
    known += SHORT_NAMES
    if name not in known:
        near = get_close_matches(name, known, n=3)
        raise InputError(f"network.encoder: no encoder {name!r}; {_hint(near, ['resnet34', 'mit_b2', 'dinov2_small'])}")


def _check_options(architecture: str, encoder: str, options: dict[str, Any]) -> None:
    known = _options_of(architecture)
    for name in options:
        # Those of timm's encoders are passed on, and timm knows them; other encoders ignore what they do not know.
        if name not in known and not encoder.startswith("tu-"):
            raise InputError(
                f"network.{name}: no option of {architecture}; {_hint(get_close_matches(name, known), known)}"
            )


def _options_of(architecture: str) -> list[str]:
    signature = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[architecture.lower()].__init__)
    set_here = ("self", "kwargs", "encoder_name", "encoder_weights", "in_channels", "classes", "aux_params")
    return [name for name in signature.parameters if name not in set_here]


def _hint(near: Iterable[str], examples: Iterable[str]) -> str:
    near = list(near)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(examples)}, ..."


def _imagenet_tag(encoder: str) -> str | bool:
    """What segmentation_models_pytorch calls the published weights of an encoder, ImageNet's where it can choose."""
    if encoder.startswith("tu-"):
        if timm.is_model_pretrained(encoder.removeprefix("tu-")):
            return True
        tags: list[str] = []
    else:
        tags = list(smp.encoders.encoders[encoder]["pretrained_settings"])
    for tag in sorted(tags, key=len):  # "imagenet" before "imagenet+5k"
        if tag.startswith("imagenet"):
            return tag
    raise InputError(
        f"network.pretrained: {encoder} has no published weights; give network.weights=PATH, or set "
        "network.pretrained=false"
    )


def _pad(image: Tensor, *, multiple: int, minimum: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples, and not below the minimum."""
    bottom, right = (-max(side, minimum) % multiple + max(minimum - side, 0) for side in image.shape[-2:])
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def _average(x: Tensor, size: Sequence[int]) -> Tensor:
    """Average pool (B, C, H, W) to a size; plain windows where they fit, which CUDA can do deterministically."""
    height, width = x.shape[-2:]
    if (height, width) == tuple(size):
        return x
    if height % size[0] == 0 and width % size[1] == 0:
        return F.avg_pool2d(x, (height // size[0], width // size[1]))
    return F.adaptive_avg_pool2d(x, (size[0], size[1]))

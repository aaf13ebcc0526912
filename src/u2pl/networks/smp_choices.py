"""The architectures, encoders and options that segmentation_models_pytorch and timm have."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

import segmentation_models_pytorch as smp
import timm

from u2pl.errors import InputError
from u2pl.networks.transformers import SHORT_NAMES

#: Options that set the decoder's width, for architectures with a single width.
WIDTHS = {
    "fpn": ("decoder_pyramid_channels", "decoder_segmentation_channels"),
    "pspnet": ("psp_out_channels",),
    "deeplabv3": ("decoder_channels",),
    "deeplabv3plus": ("decoder_channels",),
    "pan": ("decoder_channels",),
    "upernet": ("decoder_channels",),
    "segformer": ("decoder_segmentation_channels",),
    "dpt": ("decoder_fusion_channels",),
}


def width_options(architecture: str, channels: int) -> dict[str, int]:
    """Options that set a decoder's width to ``channels``. Raises InputError if its stages differ in width."""
    names = WIDTHS.get(architecture.lower())
    if names is None:
        raise InputError(f"network.channels: the decoder of {architecture} has no single width; leave it out")
    if architecture.lower() == "fpn" and channels % 32:
        raise InputError(f"network.channels: {channels} must be a multiple of 32 for FPN, which normalises 32 groups")
    return dict.fromkeys(names, channels)


def check_architecture(name: str) -> None:
    """Raise InputError, with the closest names, if the architecture does not exist."""
    classes = {key: architecture.__name__ for key, architecture in smp.MODEL_ARCHITECTURES_MAPPING.items()}
    if name.lower() not in classes:
        near = [classes[key] for key in get_close_matches(name.lower(), classes, n=3)]
        raise InputError(f"network.architecture: no architecture {name!r}; {_hint(near, classes.values())}")


def check_encoder(name: str) -> None:
    """Raise InputError, with the closest names, if the encoder does not exist."""
    if not name.startswith("tu-"):
        known = list(smp.encoders.encoders)
    elif "." in name:  # the tag after the dot names trained weights; without one timm uses its default
        known = [f"tu-{model}" for model in timm.list_models(pretrained=True)]
    else:
        known = [f"tu-{model}" for model in timm.list_models()]
    known += SHORT_NAMES
    if name not in known:
        near = get_close_matches(name, known, n=3)
        raise InputError(f"network.encoder: no encoder {name!r}; {_hint(near, ['resnet34', 'mit_b2', 'dinov2_small'])}")


def check_options(architecture: str, encoder: str, options: dict[str, Any]) -> None:
    """Raise InputError for an option that an architecture does not have."""
    known = options_of(architecture)
    for name in options:
        # Other options are passed on to the encoder: timm checks them, but other encoders ignore unknown ones.
        if name not in known and not encoder.startswith("tu-"):
            raise InputError(
                f"network.{name}: no option of {architecture}; {_hint(get_close_matches(name, known), known)}"
            )


def options_of(architecture: str) -> list[str]:
    """Options of an architecture, without those that this library sets."""
    signature = inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[architecture.lower()].__init__)
    set_here = ("self", "kwargs", "encoder_name", "encoder_weights", "in_channels", "classes", "aux_params")
    return [name for name in signature.parameters if name not in set_here]


def _hint(near: Iterable[str], examples: Iterable[str]) -> str:
    near = list(near)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(examples)}, ..."


def imagenet_tag(encoder: str) -> str | bool:
    """The tag of an encoder's ImageNet weights in segmentation_models_pytorch; True for timm's published weights."""
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


def published_colours(encoder: str) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Mean and standard deviation of RGB in [0, 1] for the published weights of a timm model; None: unknown here."""
    name = encoder.removeprefix("tu-")
    if name == encoder or not timm.is_model_pretrained(name):
        return None, None
    settings = smp.encoders.get_preprocessing_params(encoder, None)
    return settings["mean"], settings["std"]

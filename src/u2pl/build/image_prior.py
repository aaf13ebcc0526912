"""Configuration -> image prior."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from torch import Tensor, nn

from u2pl.build.trained import IMAGE_PRIOR, WEIGHTS_SUFFIX
from u2pl.config.fields import AUTO
from u2pl.config.schema import Config
from u2pl.data.rare_classes import pixel_counts, shown_classes
from u2pl.data.source import DataSource
from u2pl.engine.checkpoint import read_beside
from u2pl.engine.image_features import image_features
from u2pl.errors import InputError
from u2pl.networks.image_classifier import ImageClassifier
from u2pl.networks.image_encoder import ImageEncoder
from u2pl.pixels.image_prior import apart, image_prior, named, softmax_regression

_SECONDS = 30.0  # between two lines of progress


@dataclass(frozen=True)
class ImagePrior:
    """The prior of the unlabeled images, and a classifier that computes it for other images."""

    unlabeled: dict[str, Tensor]  #: (C,) float32 of each unlabeled image, by name
    classifier: ImageClassifier  #: for other images


def uses_image_prior(config: Config) -> bool:
    """Whether the configuration turns the image prior on and the method has pseudo-labels that use it."""
    hears = config.method.kind.semi_supervised and not config.method.kind.uses_tags
    return config.method.image_prior.sharpness not in (AUTO, 0) and hears


def check_image_prior(config: Config) -> None:
    """Raise InputError for an image prior with an encoder from scratch: to it, all images are alike."""
    network = config.network
    if uses_image_prior(config) and not (network.pretrained or network.weights or network.start_from):
        raise InputError(
            "method.image_prior.sharpness: an encoder from scratch does not know which images are alike; give "
            "network.weights or network.pretrained=true, or set method.image_prior.sharpness=0"
        )


def build_image_prior(
    config: Config,
    source: DataSource,
    network: nn.Module,
    fabric: Fabric,
    *,
    resumed: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> ImagePrior | None:
    """Make the prior with the network's encoder in its current state; None if the prior is off.

    It depends only on the images, the labels and the encoder's weights, so a resumed run gets the same prior.

    Args:
        resumed: the folder of a run that goes on. If it began with another run's network, which may be gone, it has
            saved that encoder itself.
    """
    if not uses_image_prior(config):
        return None
    began = time.perf_counter()
    shown = torch.from_numpy(shown_classes(pixel_counts(source.labeled))[:, : len(source.classes)])
    told = apart(shown)
    encoder = network.image_encoder()  # type: ignore[operator]
    if resumed is not None and config.network.start_from is not None:
        encoder = _saved_encoder(resumed, encoder, len(source.classes))
    samples = [*source.labeled, *source.unlabeled]
    features = image_features(fabric, encoder, samples, progress=None if say is None else _images_seen(say))
    prior = image_prior(features, shown, sharpness=config.method.image_prior.sharpness)
    weight, bias = softmax_regression(features, prior, told)
    if say is not None:
        asked = int((shown & told).any(dim=1).sum())
        say(
            f"image_prior: made for {len(source.unlabeled)} unlabeled images; it names the class of "
            f"{int(named(features, shown).sum())} of {asked} labeled ones right, each left out in turn "
            f"({time.perf_counter() - began:.0f} s)"
        )
    return ImagePrior(
        unlabeled={
            sample.name: row for sample, row in zip(source.unlabeled, prior[len(source.labeled) :], strict=True)
        },
        classifier=ImageClassifier(encoder, weight=weight, bias=bias, told=told).to(fabric.device),
    )


def _saved_encoder(run: Path, encoder: ImageEncoder, num_classes: int) -> ImageEncoder:
    """The encoder in the image prior of a run; ``encoder`` is of the same kind. Raises InputError if it has none."""
    path = run / f"last{WEIGHTS_SUFFIX}"
    try:
        state = read_beside(path, IMAGE_PRIOR)
        return ImageClassifier.from_state(encoder, state, num_classes=num_classes).encoder
    except (KeyError, OSError, RuntimeError, SafetensorError, ValueError) as error:
        raise InputError(
            f"{path} has lost the image prior with which this run began; train into another --out"
        ) from error


def _images_seen(say: Callable[[str], None]) -> Callable[[int, int], None]:
    """A progress callback that reports how many images are done, every few seconds."""
    last = time.perf_counter()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.perf_counter() - last >= _SECONDS:
            last = time.perf_counter()
            say(f"image_prior: {done} of {total} images seen")

    return progress


def image_prior_parameters(config: Config, network: nn.Module, prior: ImageClassifier | None = None) -> int:
    """Parameters that a prediction needs for the image prior, in addition to those of the network.

    ``prior``: of a trained network, which has no vocabulary of its own any more.
    """
    if not uses_image_prior(config) or config.evaluation.image_prior == 0:
        return 0
    encoder = network.image_encoder() if prior is None else prior.encoder  # type: ignore[operator]
    vocabulary = [] if encoder.vocabulary is None else list(encoder.vocabulary.buffers())
    return sum(tensor.numel() for tensor in (*encoder.parameters(), *vocabulary))

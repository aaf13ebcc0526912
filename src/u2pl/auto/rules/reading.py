"""What rules read from a configuration and from facts."""

from __future__ import annotations

from u2pl.auto.facts import Facts
from u2pl.config.schema import Config, TrainConfig

KINDS = {"mit_": "mit", **dict.fromkeys(("dinov2_", "dinov3_", "tu-vit_", "tu-deit", "tu-beit", "tu-eva"), "vit")}

FEW_SHOWN = 4.0  # images of VOC animals show 2.1 classes, CamVid 8.8


def kind_of(config: Config) -> str:
    """The kind of encoder: cnn, mit or vit."""
    encoder = config.network.encoder
    return next((kind for start, kind in KINDS.items() if encoder.startswith(start)), "cnn")


def is_pretrained(config: Config) -> bool:
    network = config.network
    return bool(network.pretrained or network.weights is not None or network.start_from is not None)


def shows_scenes(facts: Facts) -> bool:
    """Whether images show many classes at once, like a street, and not one or two objects."""
    return facts.shown > FEW_SHOWN


def crop_of(train: TrainConfig) -> tuple[int, int]:
    crop = train.crop_size
    return (crop, crop) if isinstance(crop, int) else (crop[0], crop[1])


def steps_of(config: Config, facts: Facts) -> int:
    train = config.train
    return train.steps if train.epochs is None else steps_of_epochs(train, facts.unlabeled or facts.labeled)


def steps_of_epochs(train: TrainConfig, images: int) -> int:
    """Number of optimiser steps for ``epochs`` passes over this many images."""
    return max(1, round((train.epochs or 0) * images / (train.batch_size * train.devices * train.nodes)))


def size_text(count: float) -> str:
    """A number of bytes as readable text."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"

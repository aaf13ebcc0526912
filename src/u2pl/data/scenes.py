"""The embedded data set: street scenes made on the fly, so that everything can be tried without any file.

A scene is a pure function of (split, seed, index). Ten classes of very different frequency share most of their colours,
in many styles, seasons and lights: a few labels cover little of that variety, while many unlabeled scenes show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from u2pl.data.scene_backdrop import paint_backdrop
from u2pl.data.scene_layout import populate, random_street, random_weather
from u2pl.data.scene_painter import CLASSES, Bytes, Camera, Canvas, photograph
from u2pl.data.source import DataSource
from u2pl.errors import InputError

PALETTE = (
    (70, 130, 180),
    (70, 70, 70),
    (128, 64, 128),
    (244, 35, 232),
    (107, 142, 35),
    (153, 153, 153),
    (220, 220, 0),
    (0, 0, 142),
    (220, 20, 60),
    (119, 11, 32),
)
MIN_SIDE = 32
_SPLITS = ("train", "val")
_VAL_SEED = 2203_03884  # validation scenes never change, so that runs with different seeds are comparable
_SMALL = 128 * 256  # scenes up to this many pixels are remembered by the hundred


def scenes(
    *,
    labeled: int | float | None = None,
    train: int = 500,
    val: int = 80,
    height: int = 96,
    width: int = 128,
    seed: int = 0,
) -> DataSource:
    """Street scenes made on the fly, ten classes, split for label-efficient training.

    ``seed`` chooses all training scenes, the labeled ones with them. The validation scenes are the same for every seed.

    Args:
        labeled: how many of the training scenes have labels: a count, a fraction of ``train``, or None for all of them.
            The other training scenes are the unlabeled ones.
        train: number of training scenes, labeled and unlabeled.
        val: number of validation scenes.
        height, width: size of every image in pixels.
        seed: of the training scenes.
    """
    for key, value, least in (("train", train, 1), ("val", val, 0), ("seed", seed, 0)):
        if not _is_int(value) or value < least:
            raise InputError(f"data.{key}: {value!r} is not possible; give an integer of at least {least}")
    for key, value in (("height", height), ("width", width)):
        if not _is_int(value) or value < MIN_SIDE:
            raise InputError(f"data.{key}: {value!r} is too small for a scene; give an integer of at least {MIN_SIDE}")
    count = _count_labeled(labeled, train)
    pool = tuple(SceneSample(index, "train", seed, height, width) for index in range(train))
    return DataSource(
        classes=CLASSES,
        labeled=pool[:count],
        unlabeled=pool[count:],
        val=tuple(SceneSample(index, "val", _VAL_SEED, height, width) for index in range(val)),
        palette=PALETTE,
    )


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count_labeled(labeled: int | float | None, train: int) -> int:
    if labeled is None:
        return train
    if isinstance(labeled, float) and 0 < labeled <= 1:
        return max(1, round(labeled * train))
    if not _is_int(labeled) or labeled < 1:
        raise InputError(
            f"data.labeled: {labeled!r} is neither a count >= 1 nor a fraction in (0, 1]; give one of them"
        )
    if labeled > train:
        raise InputError(
            f"data.labeled: {labeled} is more than the {train} scenes of data.train; lower it or raise that"
        )
    return int(labeled)


@dataclass(frozen=True, slots=True)
class SceneSample:
    """One scene: a few numbers until it is read."""

    index: int
    split: str  #: train or val
    seed: int
    height: int
    width: int

    @property
    def name(self) -> str:
        return f"{self.split}_{self.seed}_{self.index:04d}"

    @property
    def has_mask(self) -> bool:
        return True

    def image(self) -> Tensor:
        """(3, H, W) uint8 RGB."""
        return torch.from_numpy(self._painted()[0].copy())

    def mask(self) -> Tensor:
        """(H, W) uint8 class indices; the bonnet of the camera's own car, where there is one, is ignored."""
        return torch.from_numpy(self._painted()[1].copy())

    def _painted(self) -> tuple[Bytes, Bytes]:
        remember = _remember_many if self.height * self.width <= _SMALL else _remember_few
        return remember(self)


def _paint(sample: SceneSample) -> tuple[Bytes, Bytes]:
    """Image (3, H, W) and mask (H, W), both uint8. Objects are drawn at twice the size, which gives smooth edges."""
    entropy = np.random.SeedSequence(sample.seed, spawn_key=(_SPLITS.index(sample.split), sample.index))
    rng = np.random.Generator(np.random.PCG64(entropy))
    height, width = sample.height, sample.width
    camera = Camera(
        focal=width * float(rng.uniform(0.7, 1.15)),
        eye=float(rng.uniform(1.5, 2.4)),
        horizon=height * float(rng.uniform(0.36, 0.54)),
        vanish=width * float(rng.uniform(0.3, 0.7)),
    )
    weather, street = random_weather(rng), random_street(rng)
    layers = paint_backdrop(rng, camera, weather, street, height, width)
    image, mask = (layer.resize((2 * width, 2 * height), Image.Resampling.NEAREST) for layer in layers)
    twice = Camera(2 * camera.focal, camera.eye, 2 * camera.horizon, 2 * camera.vanish)
    canvas = Canvas(image, mask, twice, weather)
    populate(canvas, rng, street)
    return photograph(rng, canvas)


_remember_many = lru_cache(maxsize=1024)(_paint)
_remember_few = lru_cache(maxsize=4)(_paint)

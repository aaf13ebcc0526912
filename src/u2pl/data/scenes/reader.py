"""The built-in data set: scenes drawn on the fly, so that you can try everything without any files.

A scene is a pure function of (split, seed, index). The ten classes of streets have very different frequencies, share
most of their colours, and vary in style, season and light. A few labels cover little of that variety, but many
unlabeled scenes show it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from u2pl.data.scenes.backdrop import paint_backdrop
from u2pl.data.scenes.layout import populate, random_street, random_weather
from u2pl.data.scenes.light import DOMAINS, relit, weather_of
from u2pl.data.scenes.objects import paint_objects
from u2pl.data.scenes.painter import CLASSES, Bytes, Camera, Canvas, photograph
from u2pl.data.scenes.shapes import CLASSES as OBJECT_CLASSES
from u2pl.data.source import DataSource
from u2pl.errors import InputError
from u2pl.structures import IGNORE_INDEX

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
OBJECT_PALETTE = (
    (0, 0, 0),
    (0, 114, 178),
    (213, 94, 0),
    (240, 228, 66),
    (204, 121, 167),
    (86, 180, 233),
    (0, 158, 115),
)
KINDS = ("street", "objects")
_SPLITS = ("train", "val")
_OBJECTS, _LIGHT = 10, 11  # separate random streams
_VAL_SEED = 2203_03884  # fixed validation scenes make runs with different seeds comparable
_SMALL = 128 * 256  # up to this many pixels, 1024 scenes are cached; above, only 4


def scenes(
    *,
    labeled: int | float | None = None,
    train: int = 500,
    val: int = 80,
    height: int = 96,
    width: int = 128,
    domain: str = "day",
    kind: str = "street",
    tags: str | None = None,
    seed: int = 0,
) -> DataSource:
    """Draw scenes, split for label-efficient training: streets with ten classes, or objects with seven.

    ``seed`` determines all training scenes, including the labeled ones. The validation scenes do not depend on it.

    Args:
        labeled: number of labeled training scenes: a count, a fraction of ``train``, None for all, or False for none.
            The other training scenes are unlabeled.
        train: number of training scenes, labeled and unlabeled.
        val: number of validation scenes.
        height, width: size of every image in pixels.
        domain: the light of the streets: day, night or fog. Validation scenes show the same streets in all domains;
            training scenes show different ones.
        kind: street, or objects: one to three things on a cluttered background.
        tags: "masks": unlabeled scenes are tagged with the classes they show, and no labeled scene is needed.
        seed: of the training scenes.
    """
    for key, value, least in (("train", train, 1), ("val", val, 0), ("seed", seed, 0)):
        if not _is_int(value) or value < least:
            raise InputError(f"data.{key}: {value!r} is too small or no integer; give an integer of at least {least}")
    for key, value in (("height", height), ("width", width)):
        if not _is_int(value) or value < MIN_SIDE:
            raise InputError(f"data.{key}: {value!r} is too small for a scene; give an integer of at least {MIN_SIDE}")
    for key, name, known in (("domain", domain, DOMAINS), ("kind", kind, KINDS)):
        if name not in known:
            raise InputError(f"data.{key}: there is no {name!r}; give one of {', '.join(known)}")
    if kind == "objects" and domain != "day":
        raise InputError(f"data.domain: {domain} works only with data.kind=street; leave it out")
    if tags not in (None, "masks"):
        raise InputError(f"data.tags: {tags!r} is not possible with scenes, which have no files; give masks")
    count = 0 if labeled is False or (tags is not None and labeled == 0) else _count_labeled(labeled, train)
    look = (height, width, domain, kind)
    pool = tuple(SceneSample(index, "train", seed, *look) for index in range(train))
    return DataSource(
        classes=CLASSES if kind == "street" else OBJECT_CLASSES,
        labeled=pool[:count],
        unlabeled=pool[count:] if tags is None else [replace(scene, tagged=True) for scene in pool[count:]],
        val=tuple(SceneSample(index, "val", _VAL_SEED, *look) for index in range(val)),
        palette=PALETTE if kind == "street" else OBJECT_PALETTE,
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
    """One scene, stored as a few numbers and drawn when it is read."""

    index: int
    split: str  #: train or val
    seed: int
    height: int
    width: int
    domain: str = "day"
    kind: str = "street"
    tagged: bool = False

    @property
    def name(self) -> str:
        look = [word for word in (self.domain, self.kind) if word not in ("day", "street")]
        return "_".join((*look, self.split, str(self.seed), f"{self.index:04d}"))

    @property
    def has_mask(self) -> bool:
        return True

    @property
    def tags(self) -> frozenset[int] | None:
        """Classes that the scene shows; None unless it is ``tagged``."""
        return frozenset(np.unique(self._painted()[1]).tolist()) - {IGNORE_INDEX} if self.tagged else None

    def image(self) -> Tensor:
        """(3, H, W) uint8 RGB."""
        return torch.from_numpy(self._painted()[0].copy())

    def mask(self) -> Tensor:
        """(H, W) uint8 class indices. The bonnet of the camera's car, which some streets show, is ignored."""
        return torch.from_numpy(self._painted()[1].copy())

    def _painted(self) -> tuple[Bytes, Bytes]:
        remember = _remember_many if self.height * self.width <= _SMALL else _remember_few
        return remember(self)


def _paint(sample: SceneSample) -> tuple[Bytes, Bytes]:
    """Image (3, H, W) and mask (H, W), both uint8."""
    place = (_SPLITS.index(sample.split), sample.index)
    if sample.kind == "objects":
        return paint_objects(_generator(sample.seed, *place, _OBJECTS), sample.height, sample.width)
    domain = DOMAINS.index(sample.domain)
    # Each domain trains on its own streets: real data sets do not show the same streets by day and night.
    own = (domain,) if domain and sample.split == "train" else ()
    return _paint_street(sample, _generator(sample.seed, *place, *own), _generator(sample.seed, *place, domain, _LIGHT))


def _generator(seed: int, *numbers: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=numbers)))


def _paint_street(sample: SceneSample, rng: np.random.Generator, light: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Draw a street, its objects at twice the size for smooth edges. ``light`` generates what a domain changes."""
    height, width = sample.height, sample.width
    camera = Camera(
        focal=width * float(rng.uniform(0.7, 1.15)),
        eye=float(rng.uniform(1.5, 2.4)),
        horizon=height * float(rng.uniform(0.36, 0.54)),
        vanish=width * float(rng.uniform(0.3, 0.7)),
    )
    weather, street = weather_of(sample.domain, random_weather(rng), light), random_street(rng)
    layers = paint_backdrop(rng, camera, weather, street, height, width)
    image, mask = (layer.resize((2 * width, 2 * height), Image.Resampling.NEAREST) for layer in layers)
    twice = Camera(2 * camera.focal, camera.eye, 2 * camera.horizon, 2 * camera.vanish)
    canvas = Canvas(image, mask, twice, weather)
    populate(canvas, rng, street)
    pixels, labels = photograph(rng, canvas)
    return relit(sample.domain, pixels, labels, light), labels


_remember_many = lru_cache(maxsize=1024)(_paint)
_remember_few = lru_cache(maxsize=4)(_paint)

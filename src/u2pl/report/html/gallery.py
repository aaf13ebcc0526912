"""The gallery: pictures as data URIs, and entropies in 256 levels that a page can divide."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from u2pl.data.classes import Palette
from u2pl.report.html.measuring import SIDE, Pixels, Shot
from u2pl.report.pictures import colour_table, overlay

LEVELS = 256
_BYTES = 15_000_000  # of all pictures; a page with 200 images stays below 20 MB
_FEW = 64  # images that keep their size
_SIDE_OF_MANY, _SMALLEST = 224, 48  # pixels of a side


@dataclass(frozen=True)
class Card:
    """The pictures of one image, each a data URI."""

    name: str
    score: float  #: mIoU of this image in percent
    width: int
    height: int
    image: str  #: JPEG
    truth: str  #: png in the colours of the classes
    mask: str  #: png in the colours of the classes
    entropy: str  #: gray png, the level of each pixel

    @property
    def size(self) -> int:
        return sum(map(len, (self.image, self.truth, self.mask, self.entropy)))


@dataclass(frozen=True)
class Gallery:
    """All cards, the worst first."""

    cards: Sequence[Card]
    palette: Palette  #: of the pictures: no two classes have the same colour
    values: Sequence[float]  #: mean entropy of each level, as a share of the largest possible one
    pixels: Sequence[int]  #: of all cards, by level

    def share(self, alpha: float) -> float:
        """The share of all pixels that is unreliable with this alpha."""
        return unreliable_share(self.pixels, alpha)


def gallery(shots: Sequence[Shot], palette: Palette) -> Gallery:
    """Encode the shots, in a smaller size if they take too much space."""
    colours = distinct(palette)
    side = SIDE if len(shots) <= _FEW else _SIDE_OF_MANY
    while True:
        small = [shot.resized(side) for shot in shots]
        levels, values, pixels = leveled([shot.entropy for shot in small])
        cards = [_card(shot, level, colours) for shot, level in zip(small, levels, strict=True)]
        size = sum(card.size for card in cards)
        if size <= _BYTES or side <= _SMALLEST:
            break
        side = max(_SMALLEST, int(0.95 * side * math.sqrt(_BYTES / size)))
    largest = math.log(max(2, len(palette)))
    return Gallery(cards, colours, [round(float(value) / largest, 4) for value in values], pixels.tolist())


def leveled(
    entropies: Sequence[npt.NDArray[np.float32]],
) -> tuple[list[Pixels], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Entropies in ``LEVELS`` levels that rise with them and have as equal numbers of pixels as ties allow.

    Returns the levels of each map, the mean entropy of each level, and the number of its pixels.
    """
    every = np.concatenate([each.ravel() for each in entropies]) if entropies else np.zeros(0, np.float32)
    if not every.size:
        return [], np.zeros(LEVELS), np.zeros(LEVELS, np.int64)
    edges = np.quantile(every, np.linspace(0, 1, LEVELS + 1)[1:-1], method="inverted_cdf")
    levels = [np.searchsorted(edges, each, side="left").astype(np.uint8) for each in entropies]
    flat = np.concatenate([each.ravel() for each in levels])
    pixels = np.bincount(flat, minlength=LEVELS)
    means = np.bincount(flat, weights=every, minlength=LEVELS) / np.maximum(pixels, 1)
    return levels, np.maximum.accumulate(means), pixels


def threshold(pixels: Sequence[int], alpha: float) -> int:
    """The smallest level with at most the share ``alpha`` of the pixels at or above it: the 1 - alpha quantile."""
    allowed = alpha * sum(pixels)
    above, level = 0, LEVELS
    while level > 0 and above + pixels[level - 1] <= allowed:
        level -= 1
        above += pixels[level]
    return level


def unreliable_share(pixels: Sequence[int], alpha: float) -> float:
    """The share of pixels at or above :func:`threshold`, given how many pixels each level has."""
    return sum(pixels[threshold(pixels, alpha) :]) / max(1, sum(pixels))


def distinct(palette: Palette) -> Palette:
    """The palette, with colours changed by a shade where two are equal, or equal the white of ignored pixels."""
    taken, result = {(255, 255, 255)}, []
    for colour in palette:
        red, green, blue = colour
        while (red, green, blue) in taken:
            blue, green = (blue - 1) % 256, green if blue else (green - 1) % 256
        taken.add((red, green, blue))
        result.append((red, green, blue))
    return tuple(result)


def preview(shot: Shot, palette: Palette) -> str:
    """A data URI of the image tinted with its prediction."""
    image = torch.from_numpy(shot.image).permute(2, 0, 1)
    tinted = overlay(image, torch.from_numpy(shot.mask), palette).permute(1, 2, 0).numpy()
    return data_uri(Image.fromarray(np.ascontiguousarray(tinted)), "JPEG", quality=85)


def data_uri(image: Image.Image, kind: str, **options: Any) -> str:
    """The file of an image, inside a URI."""
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _card(shot: Shot, levels: Pixels, palette: Palette) -> Card:
    height, width = shot.truth.shape
    return Card(
        shot.name,
        shot.score,
        width,
        height,
        data_uri(Image.fromarray(shot.image), "JPEG", quality=80),
        _mask(shot.truth, palette),
        _mask(shot.mask, palette),
        data_uri(Image.fromarray(levels), "PNG"),
    )


def _mask(mask: Pixels, palette: Palette) -> str:
    image = Image.fromarray(mask)
    image.putpalette(colour_table(palette).tobytes())  # makes it a palette image
    return data_uri(image, "PNG")

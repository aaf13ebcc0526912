"""Tools to paint a street scene: colours, a camera, and a canvas that draws image and mask together.

World coordinates are in metres: X to the right of the camera, Y above the ground, Z ahead. Walls, cars, clothes and
signs share colours on purpose: position, shape and texture identify a class better.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from u2pl.structures import IGNORE_INDEX

CLASSES = (
    "sky",
    "building",
    "road",
    "sidewalk",
    "vegetation",
    "pole",
    "traffic_sign",
    "car",
    "pedestrian",
    "bicycle",
)
SKY, BUILDING, ROAD, SIDEWALK, VEGETATION, POLE, SIGN, CAR, PEDESTRIAN, BICYCLE = range(len(CLASSES))

Bytes = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Colour = tuple[float, float, float]
Point = tuple[float, float, float]


def paint(rng: np.random.Generator, saturation: float = 1.0, low: float = 30, high: float = 235) -> Colour:
    """A random colour of man-made things; most are grayish."""
    value = float(rng.uniform(low, high))
    vivid = min(1.0, saturation * float(rng.random()) ** 1.5)
    red, green, blue = colorsys.hsv_to_rgb(float(rng.random()), vivid, 1.0)
    return red * value, green * value, blue * value


def foliage(rng: np.random.Generator, season: float) -> Colour:
    """A random colour of leaves: green in summer (season 0), yellow to brown in autumn (season 1)."""
    hue = 0.29 - 0.22 * season + 0.03 * float(rng.normal())
    value = float(rng.uniform(45, 150)) * (1 + 0.4 * season)
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, float(rng.uniform(0.4, 0.8)), 1.0)
    return red * value, green * value, blue * value


def scaled(colour: Colour, factor: float) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera that points along the street. Lengths are in canvas pixels, except ``eye``."""

    focal: float
    eye: float  #: height above the ground, metres
    horizon: float
    vanish: float

    def project(self, point: Point) -> tuple[int, int]:
        x, y, z = point
        return round(self.vanish + self.focal * x / z), round(self.horizon + self.focal * (self.eye - y) / z)


@dataclass(frozen=True, slots=True)
class Weather:
    haze: float  #: extinction per metre
    haze_colour: Colour
    sun: int  #: -1 from the left, 1 from the right, 0 no cast shadows
    night: bool
    snow: bool
    season: float  #: 0 summer, 1 autumn


class Canvas:
    """An image and its mask. Shapes are drawn on both, with haze in the image."""

    def __init__(self, image: Image.Image, mask: Image.Image, camera: Camera, weather: Weather) -> None:
        self.image, self.mask, self.camera, self.weather = image, mask, camera, weather
        self._ink, self._label = ImageDraw.Draw(image, "RGBA"), ImageDraw.Draw(mask)

    def shade(self, colour: Colour, depth: float) -> tuple[int, int, int, int]:
        keep, haze = math.exp(-self.weather.haze * depth), self.weather.haze_colour
        red, green, blue = colour[0] * keep, colour[1] * keep, colour[2] * keep
        veil = 1 - keep
        return (
            min(255, int(red + haze[0] * veil)),
            min(255, int(green + haze[1] * veil)),
            min(255, int(blue + haze[2] * veil)),
            255,
        )

    def polygon(self, points: Sequence[Point], colour: Colour, label: int | None) -> None:
        """Draw a polygon in world coordinates; ``label`` None draws on the image only."""
        outline = [self.camera.project(point) for point in points]
        self._ink.polygon(outline, fill=self.shade(colour, points[0][2]))
        if label is not None:
            self._label.polygon(outline, fill=label)

    def face(self, x0: float, x1: float, y0: float, y1: float, z: float, colour: Colour, label: int | None) -> None:
        """Draw a rectangle that faces the camera."""
        self.polygon(((x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)), colour, label)

    def side(self, x: float, y0: float, y1: float, z0: float, z1: float, colour: Colour, label: int | None) -> None:
        """Draw an upright rectangle along the street."""
        self.polygon(((x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)), colour, label)

    def disc(
        self,
        x: float,
        y: float,
        z: float,
        radius: tuple[float, float],
        colour: Colour,
        label: int | None,
        ring: int = 0,
    ) -> None:
        """Draw an ellipse that faces the camera; in the image, ``ring`` > 0 draws an outline of that many pixels."""
        left, top = self.camera.project((x - radius[0], y + radius[1], z))
        right, bottom = self.camera.project((x + radius[0], y - radius[1], z))
        box, ink = (left, top, max(left, right), max(top, bottom)), self.shade(colour, z)
        self._ink.ellipse(box, fill=None if ring else ink, outline=ink if ring else None, width=max(1, ring))
        if label is not None:
            self._label.ellipse(box, fill=label)

    def line(self, start: Point, end: Point, width: float, colour: Colour, label: int | None) -> None:
        """Draw a straight bar, ``width`` metres and at least one pixel thick."""
        ends = (self.camera.project(start), self.camera.project(end))
        thick = max(1, round(self.camera.focal * width / start[2]))
        self._ink.line(ends, fill=self.shade(colour, start[2]), width=thick)
        if label is not None:
            self._label.line(ends, fill=label, width=thick)

    def shadow(self, x: float, z: float, width: float) -> None:
        """Draw a translucent shadow on the ground below a thing."""
        left, top = self.camera.project((x - width / 2, 0, z + 0.3 * width))
        right, bottom = self.camera.project((x + width / 2, 0, max(0.7 * z, z - 0.3 * width)))
        self._ink.ellipse((left, top, max(left, right), max(top, bottom)), fill=(10, 10, 20, 90))

    def glow(self, x: float, y: float, z: float, radius: float, colour: tuple[int, int, int]) -> None:
        """Draw a lamp at night."""
        for scale, alpha in ((1.0, 50), (0.6, 70), (0.25, 200)):
            left, top = self.camera.project((x - radius * scale, y + radius * scale, z))
            right, bottom = self.camera.project((x + radius * scale, y - radius * scale, z))
            self._ink.ellipse((left, top, max(left, right), max(top, bottom)), fill=(*colour, alpha))


_GRAIN = np.zeros(256, dtype=np.float32)
_GRAIN[[SKY, BUILDING, ROAD, SIDEWALK, VEGETATION]] = 0.01, 0.03, 0.04, 0.04, 0.12
_GRAIN[[POLE, SIGN, CAR, PEDESTRIAN, BICYCLE]] = 0.02, 0.02, 0.02, 0.03, 0.03


def photograph(rng: np.random.Generator, canvas: Canvas) -> tuple[Bytes, Bytes]:
    """Photograph a canvas at half its size: adds texture, exposure, white balance, noise, and the bonnet of the car."""
    small = canvas.image.reduce(2)
    if rng.random() < 0.3:
        small = small.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 0.9))))
    mask = np.array(canvas.mask)[1::2, 1::2].copy()
    height, width = mask.shape
    image = np.asarray(small, dtype=np.float32)
    image = image * (1 + _GRAIN[mask] * rng.standard_normal((height, width), dtype=np.float32))[..., None]
    exposure = rng.uniform(0.8, 1.2) if canvas.weather.night else rng.uniform(0.85, 1.25)
    warm = float(rng.normal(0, 0.04))
    gain = exposure * np.asarray((1 + warm, 1 + 0.04 * rng.normal(), 1 - warm), dtype=np.float32)
    contrast = rng.uniform(0.8, 1.25)
    image = (image * gain.astype(np.float32) - 110) * np.float32(contrast) + 110
    noise = rng.uniform(0.5, 3) * (1.5 if canvas.weather.night else 1)
    image += np.float32(noise) * rng.standard_normal(image.shape, dtype=np.float32)
    pixels = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        bonnet, rim = Image.fromarray(mask), height * float(rng.uniform(0.86, 0.96))
        box = (-0.2 * width, int(rim), 1.2 * width, 2 * height)
        ImageDraw.Draw(bonnet).ellipse(box, fill=IGNORE_INDEX)
        red, green, blue = paint(rng, 0.8, 15, 150)
        ImageDraw.Draw(pixels).ellipse(box, fill=(int(red), int(green), int(blue)))
        mask = np.array(bonnet)
    return np.ascontiguousarray(np.asarray(pixels).transpose(2, 0, 1)), mask

"""Object-centred scenes: one to three things on a cluttered background, for learning from image-level tags."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from u2pl.data.scenes.backdrop import smooth_noise
from u2pl.data.scenes.painter import Bytes, Colour, Floats, paint
from u2pl.data.scenes.shapes import SHAPES


def paint_objects(rng: np.random.Generator, height: int, width: int) -> tuple[Bytes, Bytes]:
    """Image (3, H, W) and mask (H, W), both uint8, drawn at twice the size for smooth edges."""
    tall, wide = 2 * height, 2 * width
    image = _background(rng, tall, wide)
    mask = np.zeros((tall, wide), dtype=np.uint8)
    count = 1 + int(rng.choice(3, p=(0.5, 0.3, 0.2)))
    for place in _places(rng, count):
        _put(rng, image, mask, place, largest=(0.46, 0.36, 0.28)[count - 1])
    return _photograph(rng, image), mask[1::2, 1::2].copy()


def _places(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Centres as shares of width and height: side by side, in random order."""
    lanes = (np.arange(count) + rng.uniform(0.25, 0.75, count)) / count
    return [(0.1 + 0.8 * float(lane), float(rng.uniform(0.3, 0.7))) for lane in rng.permutation(lanes)]


def _put(rng: np.random.Generator, image: Floats, mask: Bytes, place: tuple[float, float], *, largest: float) -> None:
    """Draw a thing of a random class over the image."""
    tall, wide = mask.shape
    index = int(rng.integers(len(SHAPES)))
    shape, lean = SHAPES[index]
    size, angle = tall * float(rng.uniform(0.7, 1) * largest), float(rng.uniform(-lean, lean))
    rows, columns = (
        slice(max(0, int(share * side - 1.6 * size)), int(share * side + 1.6 * size))  # no shape extends further
        for share, side in zip(place[::-1], mask.shape, strict=True)
    )
    image, mask = image[rows, columns], mask[rows, columns]
    y, x = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]]
    across, down = (x + columns.start - place[0] * wide) / size, (y + rows.start - place[1] * tall) / size
    u, v = across * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - across * np.sin(angle)
    u, v = u / float(rng.uniform(0.85, 1.2)), v / float(rng.uniform(0.85, 1.2))
    bend, phase = float(rng.uniform(0, 0.1)), rng.uniform(0, 2 * np.pi, 2)
    u, v = u + bend * np.sin(3 * v + phase[0]), v + bend * np.sin(3 * u + phase[1])
    if rng.random() < 0.5:
        u = -u
    inside, tone = shape(u, v, rng)
    dark, light = _two_colours(rng)
    shading = 1 + float(rng.uniform(0, 0.3)) * (across * np.cos(phase[0]) + down * np.sin(phase[0]))
    colour = (dark + (light - dark) * tone[..., None]) * np.clip(shading, 0.5, 1.5)[..., None]
    image[inside] = colour[inside]
    mask[inside] = index + 1


def _two_colours(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two random colours of different brightness, in random order."""
    pair = [np.array(paint(rng, 1.3, 20, 110)), np.array(paint(rng, 1.0, 140, 245))]
    first = int(rng.integers(2))
    return pair[first], pair[1 - first]


def _background(rng: np.random.Generator, tall: int, wide: int) -> Floats:
    """(H, W, 3): clouds of two colours, and clutter that has neither the shape nor the texture of a class."""
    dark, light = _two_colours(rng)
    cloud = smooth_noise(rng, tall, wide, max(8, tall // int(rng.integers(2, 6)))) + 0.5 * smooth_noise(
        rng, tall, wide, max(4, tall // 16)
    )
    image = dark + (light - dark) * (0.5 + 0.33 * cloud)[..., None]
    for _ in range(int(rng.integers(3, 8))):
        stencil = Image.new("1", (wide, tall))
        _clutter(rng, ImageDraw.Draw(stencil), tall, wide)
        y, x = np.nonzero(np.asarray(stencil))
        first, second = _two_colours(rng)
        angle, period = float(rng.uniform(0, np.pi)), float(rng.uniform(0.05, 0.25)) * tall
        stripes = ((x * np.cos(angle) + y * np.sin(angle)) / period) % 1 > (0.5 if rng.random() < 0.2 else 1)
        image[y, x] = np.where(stripes[:, None], first, second) * rng.uniform(0.7, 1.1)
    return image


def _clutter(rng: np.random.Generator, draw: ImageDraw.ImageDraw, tall: int, wide: int) -> None:
    """Draw a rectangle, an ellipse, a bar or a polygon."""
    x, y, size = float(rng.uniform(0, wide)), float(rng.uniform(0, tall)), tall * float(rng.uniform(0.06, 0.3))
    dx, dy = (float(value) * size for value in rng.uniform(0.4, 1, 2))
    kind = int(rng.integers(4))
    if kind == 0:
        draw.rectangle((x - dx, y - dy, x + dx, y + dy), fill=1)
    elif kind == 1:
        draw.ellipse((x - dx, y - dy, x + dx, y + dy), fill=1)
    elif kind == 2:
        end = (x + float(rng.uniform(-2, 2)) * size, y + float(rng.uniform(-2, 2)) * size)
        draw.line(((x, y), end), fill=1, width=max(1, round(0.15 * dx)))
    else:
        corners = rng.uniform(-1, 1, (int(rng.integers(3, 6)), 2)) * size
        draw.polygon([(x + float(a), y + float(b)) for a, b in corners], fill=1)


def _photograph(rng: np.random.Generator, image: Floats) -> Bytes:
    """Halve the size; add blur in some images, exposure, white balance and noise: (3, H, W) uint8."""
    small = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).reduce(2)
    if rng.random() < 0.3:
        small = small.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 0.9))))
    warm: Colour = (1 + 0.05 * float(rng.normal()), 1.0, 1 + 0.05 * float(rng.normal()))
    seen = np.asarray(small, dtype=np.float64) * float(rng.uniform(0.8, 1.2)) * np.array(warm)
    seen += float(rng.uniform(1, 5)) * rng.standard_normal(seen.shape)
    return np.ascontiguousarray(np.clip(seen, 0, 255).astype(np.uint8).transpose(2, 0, 1))

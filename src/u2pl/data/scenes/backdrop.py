"""The backdrop of a street scene, computed per pixel: sky, skyline, ground, and the two rows of houses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from u2pl.data.scenes.facades import Layers, paint_side
from u2pl.data.scenes.layout import (
    ASPHALT,
    FAR_HOUSES,
    FAR_TREES,
    FIXED,
    GRASS,
    JOINT,
    MARKING,
    OPEN_SKY,
    PAVING,
    Street,
    random_lots,
)
from u2pl.data.scenes.painter import BUILDING, Camera, Colour, Floats, Weather, foliage, paint


def paint_backdrop(
    rng: np.random.Generator, camera: Camera, weather: Weather, street: Street, height: int, width: int
) -> tuple[Image.Image, Image.Image]:
    """Image and mask of sky, skyline, ground and the two rows of houses."""
    y, x = np.arange(height, dtype=np.float32)[:, None] + 0.5, np.arange(width, dtype=np.float32) + 0.5
    rise = camera.horizon - y  # (H, 1) pixels above the horizon
    offset = x - camera.vanish  # (W,) pixels right of the vanishing point
    colours, light, depth, material = _ground(rng, camera, weather, street, rise, offset)

    sky = (rise > 0)[:, 0]
    cloud = np.clip(smooth_noise(rng, height, width, max(8, width // 8)) * 1.5 + rng.uniform(-1.5, 0.7), 0, 0.9)
    keep = np.exp(-weather.haze * depth) * np.ones_like(light)
    keep[sky] = (np.clip(rise / camera.horizon * 1.6, 0.05, 1) * (1 - cloud))[sky]
    skyline = np.repeat(rng.uniform(-0.06, 0.22, 24) * rng.uniform(0.2, 1), width // 24 + 1)[:width] * camera.horizon
    trees = smooth_noise(rng, 1, width, max(4, width // 16))[0] * 6 + height * rng.uniform(-0.03, 0.06)
    for top, stuff in ((skyline, FAR_HOUSES), (trees, FAR_TREES)):
        far = (rise > 0) & (rise < top)
        material[far], keep[far] = stuff, np.exp(-weather.haze * 90)

    layers = Layers(material, light, keep)
    first, sides = len(FIXED), (random_lots(rng, street.park[0]), random_lots(rng, street.park[1]))
    for side, lots in enumerate(sides):
        paint_side(camera, weather, street, side, lots, first, (rise, offset), layers)
        first += 5 * len(lots)

    table = np.asarray([*colours, *(c for lots in sides for lot in lots for c in lot["colours"])], dtype=np.float32)
    labels = np.asarray([*FIXED, *(BUILDING for lots in sides for _ in range(5 * len(lots)))], dtype=np.uint8)
    keep = keep[..., None]
    image = table[material] * (light[..., None] * keep) + np.asarray(weather.haze_colour, np.float32) * (1 - keep)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)), Image.fromarray(labels[material])


def _fixed_colours(rng: np.random.Generator, weather: Weather) -> list[Colour]:
    """One colour for each entry of FIXED."""
    gray, walk_gray = float(rng.uniform(45, 110)), float(rng.uniform(100, 200))
    road: Colour = (gray, gray * float(rng.uniform(0.95, 1.03)), gray * float(rng.uniform(0.92, 1.1)))
    walk: Colour = (walk_gray, walk_gray * float(rng.uniform(0.8, 0.95)), walk_gray * float(rng.uniform(0.65, 0.9)))
    mark = (235.0, 235.0, 225.0) if rng.random() < 0.75 else (225.0, 180.0, 60.0)
    grass = foliage(rng, 0.6 * weather.season)
    if weather.snow:
        road, walk, grass = ((0.6 * a + 90, 0.6 * b + 90, 0.6 * c + 95) for a, b, c in (road, walk, grass))
    zenith = rng.uniform((60, 120, 200), (130, 180, 250)) * (0.2 if weather.night else 1)
    hedge, trees = foliage(rng, weather.season), foliage(rng, weather.season)
    joint = tuple(c * float(rng.uniform(0.6, 1.3)) for c in walk)
    return [tuple(zenith), paint(rng, 0.4, 60, 190), trees, road, mark, walk, joint, grass, hedge]  # type: ignore[list-item]


def _ground(
    rng: np.random.Generator, camera: Camera, weather: Weather, street: Street, rise: Floats, offset: Floats
) -> tuple[list[Colour], Floats, Floats, NDArray[np.intp]]:
    """Colours of the fixed materials, light (H, W), depth (H, 1), and road, sidewalk and grass as materials (H, W)."""
    depth = camera.focal * camera.eye / np.maximum(-rise, 0.5)
    across = offset * depth / camera.focal
    colours = _fixed_colours(rng, weather)

    near, far = street.road
    material = np.full(across.shape, ASPHALT, dtype=np.intp)
    dashes, line = float(rng.uniform(3, 9)), float(rng.uniform(0.08, 0.16))
    style, centre = int(rng.integers(4)), (far - near) / 2
    if style:
        on = (depth % dashes < dashes * 0.5) | (style == 2)
        material[(np.abs(across - centre) < line) & on] = MARKING
    if style == 3:
        material[np.abs(np.minimum(across + near, far - across) - 0.4) < line] = MARKING
    if rng.random() < 0.35:  # zebra crossing
        start = float(rng.uniform(4, 18))
        material[(depth > start) & (depth < start + 3) & (across % 1.1 < 0.55)] = MARKING
    tile = float(rng.uniform(0.8, 2.5))
    paving = np.where((depth % tile < 0.12 * tile) | (across % tile < 0.1 * tile), JOINT, PAVING)
    for side, sign in enumerate((-1, 1)):
        beyond = sign * across - street.road[side]
        np.copyto(material, paving, where=beyond > 0)
        material[(beyond > 0) & (beyond < 0.2)] = JOINT
        material[(beyond > 0.2) & (beyond < street.verge[side])] = GRASS
    material[rise[:, 0] > 0] = OPEN_SKY
    height, width = rise.size, offset.size
    light = 1 + rng.uniform(0.02, 0.14) * smooth_noise(rng, height, width, max(4, width // 24))
    light += rng.uniform(0.02, 0.1) * smooth_noise(rng, height, width, 2)
    light[rise[:, 0] > 0] = 1
    return colours, light, depth, material


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: int) -> Floats:
    """Noise (height, width) in [-1, 1] with blobs of about ``cell`` pixels."""
    small = rng.integers(0, 256, (height // cell + 2, width // cell + 2), dtype=np.uint8)
    large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(large, dtype=np.float32) / 127.5 - 1

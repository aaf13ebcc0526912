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
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from u2pl.data.scene_painter import (
    BICYCLE,
    BUILDING,
    CAR,
    CLASSES,
    PEDESTRIAN,
    POLE,
    ROAD,
    SIDEWALK,
    SIGN,
    SKY,
    VEGETATION,
    Camera,
    Canvas,
    Colour,
    Weather,
    draw_bicycle,
    draw_car,
    draw_crossing_car,
    draw_lamp,
    draw_pedestrian,
    draw_sign,
    draw_tree,
    foliage,
    paint,
)
from u2pl.data.source import DataSource
from u2pl.errors import InputError
from u2pl.structures import IGNORE_INDEX

Bytes = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

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
    labeled: int | float | None = 12,
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
    weather, street = _weather(rng), _street(rng)
    layers = _backdrop(rng, camera, weather, street, height, width)
    image, mask = (layer.resize((2 * width, 2 * height), Image.Resampling.NEAREST) for layer in layers)
    twice = Camera(2 * camera.focal, camera.eye, 2 * camera.horizon, 2 * camera.vanish)
    canvas = Canvas(image, mask, twice, weather)
    _populate(canvas, rng, street)
    return _photograph(rng, canvas)


_remember_many = lru_cache(maxsize=1024)(_paint)
_remember_few = lru_cache(maxsize=4)(_paint)


@dataclass(frozen=True, slots=True)
class Street:
    """Where things are, left (0) and right (1): metres from the camera to the end of the road, and of the sidewalk."""

    road: tuple[float, float]
    walk: tuple[float, float]
    verge: tuple[float, float]  #: width of the grass between road and sidewalk
    park: tuple[bool, bool]


def _weather(rng: np.random.Generator) -> Weather:
    kind = float(rng.random())
    night, fog, clear = kind < 0.1, 0.1 <= kind < 0.22, kind > 0.55
    tint = rng.uniform((150, 165, 175), (225, 225, 235))
    if night:
        tint = rng.uniform((15, 15, 30), (60, 50, 80))
    elif clear and rng.random() < 0.35:  # dawn or dusk
        tint = rng.uniform((215, 130, 80), (255, 190, 160))
    return Weather(
        haze=float(rng.uniform(0.015, 0.035) if fog else rng.uniform(0.001, 0.012)),
        haze_colour=(float(tint[0]), float(tint[1]), float(tint[2])),
        sun=int(rng.integers(2)) * 2 - 1 if clear else 0,
        night=night,
        snow=bool(rng.random() < 0.08),
        season=float(rng.random() ** 3),
    )


def _street(rng: np.random.Generator) -> Street:
    near, far = float(rng.uniform(2.0, 3.2)), float(rng.uniform(2.8, 6))
    road = (far, near) if rng.random() < 0.7 else (near, far)
    verge = tuple(float(rng.uniform(0.8, 3)) if rng.random() < 0.25 else 0.0 for _ in range(2))
    walk = tuple(road[side] + verge[side] + float(rng.uniform(2.5, 6)) for side in range(2))
    return Street(road, (walk[0], walk[1]), (verge[0], verge[1]), (rng.random() < 0.15, rng.random() < 0.15))


def _smooth_noise(rng: np.random.Generator, height: int, width: int, cell: int) -> Floats:
    """(height, width) in [-1, 1], with blobs of about ``cell`` pixels."""
    small = rng.integers(0, 256, (height // cell + 2, width // cell + 2), dtype=np.uint8)
    large = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(large, dtype=np.float32) / 127.5 - 1


# Materials of the backdrop: the first ones are fixed, then each lot brings five of its own.
_FIXED = (SKY, BUILDING, VEGETATION, ROAD, ROAD, SIDEWALK, SIDEWALK, VEGETATION, VEGETATION)
_SKY, _FAR_HOUSES, _FAR_TREES, _ROAD, _MARKING, _WALK, _JOINT, _GRASS, _HEDGE = range(len(_FIXED))
_WALL, _WINDOW, _LIT, _SHOP, _ROOF = range(5)
_HOUSE, _YARD, _ALLEY, _END = range(4)


def _lots(rng: np.random.Generator, park: bool) -> list[dict[str, Any]]:
    """What lines one side of the street, from the camera to its end: houses, yards, alleys."""
    lots: list[dict[str, Any]] = []
    z, end = -float(rng.uniform(0, 8)), float(rng.uniform(40, 140))
    while z < end:
        gap = park or (bool(lots) and lots[-1]["kind"] == _HOUSE and rng.random() < 0.3)
        kind = (_YARD if park or rng.random() < 0.6 else _ALLEY) if gap else _HOUSE
        z += float(rng.uniform(4, 9) if gap and not park else rng.uniform(6, 20))
        wall, tall = paint(rng, 0.45, 70, 225), float(rng.uniform(3.5, 9) if rng.random() < 0.5 else rng.uniform(8, 30))
        lot: dict[str, Any] = {
            "kind": kind,
            "z": z,
            "height": tall if kind == _HOUSE else 0.0,
            "hedge": float(rng.uniform(0.5, 3)) if kind == _YARD and rng.random() < 0.7 else 0.0,
            "gable": float(rng.uniform(1, 4)) if tall < 12 and rng.random() < 0.6 else 0.0,
            "pitch": float(rng.uniform(1.6, 4)),
            "storey": float(rng.uniform(2.6, 3.8)),
            "open": (*rng.uniform((0.1, 0.55), (0.35, 0.9)), *rng.uniform((0.15, 0.6), (0.4, 0.9))),
            "shop": float(rng.uniform(2.5, 3.6)) if rng.random() < 0.4 else 0.0,
            "colours": (wall, paint(rng, 0.6, 25, 200), (255, 215, 130), paint(rng), paint(rng, 0.7, 30, 170)),
        }
        if rng.random() < 0.15:  # bands of glass
            lot["open"] = (-1.0, 2.0, *lot["open"][2:])
        lots.append(lot)
    lots.append({**lots[-1], "kind": _END, "z": 1e9, "height": 0.0, "hedge": 0.0, "shop": 0.0, "gable": 0.0})
    return lots


def _backdrop(
    rng: np.random.Generator, camera: Camera, weather: Weather, street: Street, height: int, width: int
) -> tuple[Image.Image, Image.Image]:
    """Sky, skyline, ground and the two rows of houses, pixel by pixel."""
    y, x = np.arange(height, dtype=np.float32)[:, None] + 0.5, np.arange(width, dtype=np.float32) + 0.5
    rise = camera.horizon - y  # (H, 1) above the horizon
    offset = x - camera.vanish  # (W,) right of the vanishing point
    colours, light, depth, material = _ground(rng, camera, weather, street, rise, offset)

    sky = (rise > 0)[:, 0]
    cloud = np.clip(_smooth_noise(rng, height, width, max(8, width // 8)) * 1.5 + rng.uniform(-1.5, 0.7), 0, 0.9)
    keep = np.exp(-weather.haze * depth) * np.ones_like(light)
    keep[sky] = (np.clip(rise / camera.horizon * 1.6, 0.05, 1) * (1 - cloud))[sky]
    skyline = np.repeat(rng.uniform(-0.06, 0.22, 24) * rng.uniform(0.2, 1), width // 24 + 1)[:width] * camera.horizon
    trees = _smooth_noise(rng, 1, width, max(4, width // 16))[0] * 6 + height * rng.uniform(-0.03, 0.06)
    for top, stuff in ((skyline, _FAR_HOUSES), (trees, _FAR_TREES)):
        far = (rise > 0) & (rise < top)
        material[far], keep[far] = stuff, np.exp(-weather.haze * 90)

    first, sides = len(_FIXED), (_lots(rng, street.park[0]), _lots(rng, street.park[1]))
    for side, lots in enumerate(sides):
        columns = np.flatnonzero(offset > 0 if side else offset < 0)
        _facades(camera, weather, street, side, lots, first, (columns, rise, offset[columns]), (material, light, keep))
        first += 5 * len(lots)

    table = np.asarray([*colours, *(c for lots in sides for lot in lots for c in lot["colours"])], dtype=np.float32)
    labels = np.asarray([*_FIXED, *(BUILDING for lots in sides for _ in range(5 * len(lots)))], dtype=np.uint8)
    keep = keep[..., None]
    image = table[material] * (light[..., None] * keep) + np.asarray(weather.haze_colour, np.float32) * (1 - keep)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)), Image.fromarray(labels[material])


def _ground(
    rng: np.random.Generator, camera: Camera, weather: Weather, street: Street, rise: Floats, offset: Floats
) -> tuple[list[Colour], Floats, Floats, NDArray[np.intp]]:
    """Colours of the fixed materials, light (H, W), depth (H, 1), and road, sidewalk and grass as materials (H, W)."""
    depth = camera.focal * camera.eye / np.maximum(-rise, 0.5)
    across = offset * depth / camera.focal
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
    colours = [tuple(zenith), paint(rng, 0.4, 60, 190), trees, road, mark, walk, joint, grass, hedge]

    near, far = street.road
    material = np.full(across.shape, _ROAD, dtype=np.intp)
    dashes, line = float(rng.uniform(3, 9)), float(rng.uniform(0.08, 0.16))
    style, centre = int(rng.integers(4)), (far - near) / 2
    if style:
        on = (depth % dashes < dashes * 0.5) | (style == 2)
        material[(np.abs(across - centre) < line) & on] = _MARKING
    if style == 3:
        material[np.abs(np.minimum(across + near, far - across) - 0.4) < line] = _MARKING
    if rng.random() < 0.35:  # zebra crossing
        start = float(rng.uniform(4, 18))
        material[(depth > start) & (depth < start + 3) & (across % 1.1 < 0.55)] = _MARKING
    tile = float(rng.uniform(0.8, 2.5))
    paving = np.where((depth % tile < 0.12 * tile) | (across % tile < 0.1 * tile), _JOINT, _WALK)
    for side, sign in enumerate((-1, 1)):
        beyond = sign * across - street.road[side]
        np.copyto(material, paving, where=beyond > 0)
        material[(beyond > 0) & (beyond < 0.2)] = _JOINT
        material[(beyond > 0.2) & (beyond < street.verge[side])] = _GRASS
    material[rise[:, 0] > 0] = _SKY
    height, width = rise.size, offset.size
    light = 1 + rng.uniform(0.02, 0.14) * _smooth_noise(rng, height, width, max(4, width // 24))
    light += rng.uniform(0.02, 0.1) * _smooth_noise(rng, height, width, 2)
    light[rise[:, 0] > 0] = 1
    return colours, light, depth, material  # type: ignore[return-value]


def _facades(
    camera: Camera,
    weather: Weather,
    street: Street,
    side: int,
    lots: list[dict[str, Any]],
    first: int,
    grid: tuple[NDArray[np.intp], Floats, Floats],
    layers: tuple[NDArray[np.intp], Floats, Floats],
) -> None:
    """Draws the houses, hedges and alleys of one side into the columns of the layers (material, light, keep)."""
    columns, rise, offset = grid
    here = slice(int(columns[0]), int(columns[-1]) + 1)
    material, light, keep = (layer[:, here] for layer in layers)
    ends = np.asarray([lot["z"] for lot in lots])
    wall = np.maximum(
        camera.focal * street.walk[side] / np.maximum(np.abs(offset), 0.5), 0.1
    )  # depth of the facade line
    lot = np.searchsorted(ends, wall)
    kind, values = np.asarray([lot["kind"] for lot in lots]), {}
    for key in ("height", "hedge", "gable", "pitch", "storey", "open", "shop"):
        values[key] = np.asarray([lot[key] for lot in lots], dtype=np.float32)

    # The ground beyond the sidewalk, and the shadow of the houses towards the sun.
    depth = camera.focal * camera.eye / np.maximum(-rise, 0.5)
    row = np.searchsorted(ends, depth[:, 0])
    across, below = np.abs(offset) * depth / camera.focal, rise < 0
    outside = below & (across > street.walk[side])
    material[outside & (kind[row] == _YARD)[:, None]] = _GRASS
    material[below & (across > street.road[side]) & (kind[row] == _ALLEY)[:, None]] = _ROAD
    sign = 2 * side - 1
    if weather.sun == sign:
        reach = street.walk[side] - 0.35 * values["height"][row][:, None]
        light[below & (across > reach)] *= 0.55

    # A gap shows the front of the next house, which faces the camera.
    front = (kind[lot] == _YARD) | (kind[lot] == _ALLEY)
    shown = np.minimum(lot + front, len(lots) - 1)
    place = np.where(front, ends[np.minimum(lot, len(lots) - 2)], wall).astype(np.float32)
    along = np.where(front, np.abs(offset) * place / camera.focal, wall).astype(np.float32)
    level = camera.eye + rise * (place / camera.focal)  # (H, w) metres above the ground
    top, cell = values["height"][shown], along / values["pitch"][shown]
    peak = top + values["gable"][shown] * (1 - np.abs(2 * ((along / 9) % 1) - 1)) * (top > 0)
    storey = level / values["storey"][shown]
    left, right, low, high = values["open"][shown].T
    window = (cell % 1 > left) & (cell % 1 < right) & (place < 70) & (storey % 1 > low) & (storey % 1 < high)
    part = np.full(level.shape, _WALL, dtype=np.intp)
    part[window] = _WINDOW
    if weather.night:
        lit = (cell.astype(int) * 7 + storey.astype(int) * 13 + shown * 5) % 3 == 0
        part[window & lit] = _LIT
    shop = values["shop"][shown]
    part[(level < shop) & ((level > 0.8 * shop) | (cell % 1 > 0.85))] = _SHOP
    np.copyto(part, _ROOF, where=level > top - 0.25)
    part += first + 5 * shown
    inside = (level > 0) & (level < peak)
    np.copyto(material, part, where=inside)
    np.copyto(keep, np.exp(-weather.haze * place), where=inside)
    dim = np.where(front, 0.9, 0.6 if weather.sun == sign else 1.0) * (0.9 + 0.1 * np.cos(along * 3))
    np.copyto(light, dim.astype(np.float32), where=inside)

    bush = camera.eye + rise * (wall / camera.focal)
    edge = values["hedge"][lot] * (1 + 0.12 * np.sin(wall * 2.1))
    hedge = (bush > 0) & (bush < edge)
    material[hedge] = _HEDGE
    np.copyto(light, 0.7 + 0.35 * bush / np.maximum(edge, 0.1), where=hedge)
    np.copyto(keep, np.exp(-weather.haze * wall), where=hedge)


def _populate(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    """Puts trees, lamps, signs, cars, people and bicycles in the street, the far ones first."""
    things: list[tuple[float, Any, float]] = []
    for side, sign in enumerate((-1, 1)):
        road, walk = street.road[side], street.walk[side]
        curb = sign * (road + 0.4)
        if rng.random() < 0.4:
            step = float(rng.uniform(6, 14))
            things += [(z, draw_tree, curb + 0.4 * sign) for z in np.arange(float(rng.uniform(6, 12)), 50, step)]
        for _ in range(int(rng.integers(10, 16)) if street.park[side] else int(rng.integers(3))):
            things.append((float(rng.uniform(7, 50)), draw_tree, sign * (walk + float(rng.uniform(1, 12)))))
        if rng.random() < 0.7:
            step = float(rng.uniform(9, 22))
            things += [(z, draw_lamp, curb) for z in np.arange(float(rng.uniform(4.5, 12)), 40, step)]
        if rng.random() < 0.55:
            z = float(rng.uniform(4.5, 14))
            while z < 45:
                if rng.random() < 0.7:
                    things.append((z, draw_car, sign * (road - 1.05)))
                z += float(rng.uniform(5, 8))
        for _ in range(int(rng.integers(4))):
            things.append((float(rng.uniform(4.5, 15)), draw_sign, curb + sign * float(rng.uniform(-0.1, 0.6))))
        for _ in range(int(rng.integers(6))):
            things.append((float(rng.uniform(3.5, 12)), draw_pedestrian, sign * float(rng.uniform(road + 0.4, walk))))
        for _ in range(int(rng.integers(3))):
            things.append((float(rng.uniform(3.5, 9)), draw_bicycle, sign * float(rng.uniform(road, walk))))
    for _ in range(int(rng.integers(4))):
        lane = float(rng.uniform(1.2 - street.road[0], street.road[1] - 1.2))
        kind = (draw_car, draw_car, draw_crossing_car, draw_pedestrian, _draw_cyclist)[int(rng.integers(5))]
        things.append((float(rng.uniform(6, 22)), kind, lane))
    for z, draw, x in sorted(things, key=lambda thing: -thing[0]):
        draw(canvas, rng, float(x), float(z))


def _draw_cyclist(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
    draw_bicycle(canvas, rng, x, z, rider=True)


_GRAIN = np.zeros(256, dtype=np.float32)
_GRAIN[[SKY, BUILDING, ROAD, SIDEWALK, VEGETATION]] = 0.01, 0.03, 0.04, 0.04, 0.12
_GRAIN[[POLE, SIGN, CAR, PEDESTRIAN, BICYCLE]] = 0.02, 0.02, 0.02, 0.03, 0.03


def _photograph(rng: np.random.Generator, canvas: Canvas) -> tuple[Bytes, Bytes]:
    """What the camera makes of a canvas: half its size, texture, exposure, white balance, noise, its own bonnet."""
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

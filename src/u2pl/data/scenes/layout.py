"""Random layout of a street scene: weather, street, the houses and yards along it, and the things in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from u2pl.data.scenes.painter import BUILDING, ROAD, SIDEWALK, SKY, VEGETATION, Canvas, Weather, paint
from u2pl.data.scenes.things import (
    draw_bicycle,
    draw_car,
    draw_crossing_car,
    draw_cyclist,
    draw_lamp,
    draw_pedestrian,
    draw_sign,
    draw_tree,
)

# Materials of the backdrop: first the fixed ones, then five for each lot.
FIXED = (SKY, BUILDING, VEGETATION, ROAD, ROAD, SIDEWALK, SIDEWALK, VEGETATION, VEGETATION)
OPEN_SKY, FAR_HOUSES, FAR_TREES, ASPHALT, MARKING, PAVING, JOINT, GRASS, HEDGE = range(len(FIXED))
WALL, WINDOW, LIT, SHOP, ROOF = range(5)
HOUSE, YARD, ALLEY, END = range(4)


@dataclass(frozen=True, slots=True)
class Street:
    """Left (0) and right (1) side: metres from the camera to the outer edge of the road, and of the sidewalk."""

    road: tuple[float, float]
    walk: tuple[float, float]
    verge: tuple[float, float]  #: width of the grass between road and sidewalk
    park: tuple[bool, bool]


def random_weather(rng: np.random.Generator) -> Weather:
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


def random_street(rng: np.random.Generator) -> Street:
    near, far = float(rng.uniform(2.0, 3.2)), float(rng.uniform(2.8, 6))
    road = (far, near) if rng.random() < 0.7 else (near, far)
    verge = tuple(float(rng.uniform(0.8, 3)) if rng.random() < 0.25 else 0.0 for _ in range(2))
    walk = tuple(road[side] + verge[side] + float(rng.uniform(2.5, 6)) for side in range(2))
    return Street(road, (walk[0], walk[1]), (verge[0], verge[1]), (rng.random() < 0.15, rng.random() < 0.15))


def random_lots(rng: np.random.Generator, park: bool) -> list[dict[str, Any]]:
    """The lots on one side of the street, nearest first: houses, yards, alleys."""
    lots: list[dict[str, Any]] = []
    z, end = -float(rng.uniform(0, 8)), float(rng.uniform(40, 140))
    while z < end:
        gap = park or (bool(lots) and lots[-1]["kind"] == HOUSE and rng.random() < 0.3)
        kind = (YARD if park or rng.random() < 0.6 else ALLEY) if gap else HOUSE
        z += float(rng.uniform(4, 9) if gap and not park else rng.uniform(6, 20))
        wall, tall = paint(rng, 0.45, 70, 225), float(rng.uniform(3.5, 9) if rng.random() < 0.5 else rng.uniform(8, 30))
        lot: dict[str, Any] = {
            "kind": kind,
            "z": z,
            "height": tall if kind == HOUSE else 0.0,
            "hedge": float(rng.uniform(0.5, 3)) if kind == YARD and rng.random() < 0.7 else 0.0,
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
    lots.append({**lots[-1], "kind": END, "z": 1e9, "height": 0.0, "hedge": 0.0, "shop": 0.0, "gable": 0.0})
    return lots


def populate(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
    """Draw trees, lamps, signs, cars, people and bicycles in the street, the farthest first."""
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
            things.append((float(rng.uniform(3.0, 8)), draw_pedestrian, sign * float(rng.uniform(road + 0.4, walk))))
        for _ in range(int(rng.integers(4))):
            things.append((float(rng.uniform(3.0, 6)), draw_bicycle, sign * float(rng.uniform(road, walk))))
    for _ in range(int(rng.integers(4))):
        lane = float(rng.uniform(1.2 - street.road[0], street.road[1] - 1.2))
        kind = (draw_car, draw_car, draw_crossing_car, draw_pedestrian, draw_cyclist)[int(rng.integers(5))]
        things.append((float(rng.uniform(6, 22)), kind, lane))
    for z, draw, x in sorted(things, key=lambda thing: -thing[0]):
        draw(canvas, rng, float(x), float(z))

"""The things of the object-centred scenes: each class has its own shape and texture, in any colour.

A shape is a function of coordinates (u, v), which rotate and scale with the thing: u to the right, v downwards. The
thing fills roughly the square from -1 to 1. The function returns its mask, and its tone, 0 to 1 between two colours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from u2pl.data.scenes.painter import Floats

Bools = NDArray[np.bool_]
Shape = Callable[[Floats, Floats, np.random.Generator], tuple[Bools, Floats]]

CLASSES = ("background", "fish", "mushroom", "star", "ring", "bottle", "leaf")


def fish(u: Floats, v: Floats, rng: np.random.Generator) -> tuple[Bools, Floats]:
    """A body with scales, a forked tail, an eye."""
    fat, tail = rng.uniform(0.35, 0.6), rng.uniform(0.35, 0.65)
    body = ((u + 0.25) / 0.75) ** 2 + (v / fat) ** 2 < 1
    fin = (u > 0.3) & (u < 1 - 0.3 * np.cos(3 * v)) & (np.abs(v) < tail * (u - 0.25) / 0.75)
    scales = _wave(rng.uniform(3, 5) * u + rng.uniform(3, 5) * v) * _wave(rng.uniform(3, 5) * (u - v))
    eye = (u + 0.65) ** 2 + (v + 0.12) ** 2 < 0.009
    return body | fin, np.where(eye, 1.0, np.where(fin & ~body, 0.35, 0.25 + 0.75 * (scales > 0.25)))


def mushroom(u: Floats, v: Floats, rng: np.random.Generator) -> tuple[Bools, Floats]:
    """A spotted cap on a plain stem."""
    flat, thick = rng.uniform(0.7, 1.0), rng.uniform(0.15, 0.32)
    cap = (u**2 + (v / flat) ** 2 < 1) & (v < 0.1)
    stem = (np.abs(u) < thick * (1 + 0.4 * np.maximum(v, 0))) & (v >= 0.1) & (v < 0.95)
    every, size = rng.uniform(0.45, 0.65), rng.uniform(0.15, 0.25)
    across, along = (u + rng.uniform(0, 1)) % every - every / 2, (v + rng.uniform(0, 1)) % every - every / 2
    spots = across**2 + along**2 < size**2
    return cap | stem, np.where(cap, np.where(spots, 1.0, 0.0), 0.85)


def star(u: Floats, v: Floats, rng: np.random.Generator) -> tuple[Bools, Floats]:
    """Five or six points, with rings around the centre."""
    points, depth = int(rng.integers(5, 7)), rng.uniform(0.38, 0.55)
    radius, turn = np.hypot(u, v), (np.arctan2(v, u) / (2 * np.pi) * points) % 1
    edge = depth + (1 - depth) * np.abs(2 * turn - 1) ** 1.3
    return radius < edge, (_wave(rng.uniform(2.5, 4) * radius) > 0.5).astype(np.float64)


def ring(u: Floats, v: Floats, rng: np.random.Generator) -> tuple[Bools, Floats]:
    """A band around a hole, in sectors of two tones."""
    radius, sectors = np.hypot(u, v), int(rng.integers(5, 10))
    turn = np.arctan2(v, u) / (2 * np.pi) * sectors + rng.uniform(0, 1)
    return (radius < 0.95) & (radius > rng.uniform(0.35, 0.6)), (turn % 1 > 0.5).astype(np.float64)


def bottle(u: Floats, v: Floats, rng: np.random.Generator) -> tuple[Bools, Floats]:
    """A long neck, shoulders, a label with lines across."""
    wide, neck, shoulder = rng.uniform(0.3, 0.5), rng.uniform(0.09, 0.16), rng.uniform(-0.35, 0.0)
    half = neck + (wide - neck) / (1 + np.exp(-(v - shoulder) / 0.07))
    label = (v > shoulder + 0.3) & (v < 0.8)
    lines = _wave(rng.uniform(4, 7) * v) > 0.5
    shine = np.exp(-(((u + 0.5 * wide) / 0.08) ** 2))
    return (np.abs(u) < half) & (np.abs(v) < 1), np.where(label, np.where(lines, 1.0, 0.45), 0.7 * shine)


def leaf(u: Floats, v: Floats, rng: np.random.Generator) -> tuple[Bools, Floats]:
    """Pointed at both ends, with slanting veins and a stalk."""
    fat, veins = rng.uniform(0.35, 0.6), rng.uniform(3, 5)
    blade = (np.abs(v) < fat * (1 - u**2)) & (np.abs(u) < 0.95)
    stalk = (np.abs(v) < 0.05) & (u >= 0.7) & (u < 1.15)
    vein = (_wave(veins * (u + rng.uniform(0.7, 1.2) * np.abs(v))) > 0.8) | (np.abs(v) < 0.045)
    return blade | stalk, np.where(vein, 1.0, 0.1)


#: Shape and largest rotation (radians) of each class, in the order of CLASSES without the background.
SHAPES: tuple[tuple[Shape, float], ...] = (
    (fish, np.pi),
    (mushroom, 0.5),
    (star, np.pi),
    (ring, np.pi),
    (bottle, 0.7),
    (leaf, np.pi),
)


def _wave(turns: Floats) -> Floats:
    """A wave from 0 to 1 and back, once per turn."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * turns)

"""The two rows of houses of a street scene, with their yards, alleys, hedges and shadows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from u2pl.data.scenes.layout import (
    ALLEY,
    ASPHALT,
    GRASS,
    HEDGE,
    LIT,
    ROOF,
    SHOP,
    WALL,
    WINDOW,
    YARD,
    Street,
)
from u2pl.data.scenes.painter import Camera, Floats, Weather


@dataclass(frozen=True, slots=True)
class Layers:
    """The layers of a backdrop, each (H, W)."""

    material: NDArray[np.intp]
    light: Floats
    keep: Floats  #: share of a pixel's own colour; the rest is haze

    def columns(self, first: int, last: int) -> Layers:
        """A view of the columns ``first`` to ``last``, both included."""
        here = slice(first, last + 1)
        return Layers(self.material[:, here], self.light[:, here], self.keep[:, here])


class _Side:
    """One side of the street: its lots as arrays, and the lot that each pixel column shows."""

    def __init__(
        self,
        camera: Camera,
        weather: Weather,
        street: Street,
        side: int,
        lots: list[dict[str, Any]],
        grid: tuple[Floats, Floats],
    ) -> None:
        """``grid`` is ``rise`` (H, 1), pixels above the horizon, and ``offset`` (w,), right of the vanishing point."""
        self.camera, self.weather = camera, weather
        self.road, self.walk = street.road[side], street.walk[side]
        self.shaded = weather.sun == 2 * side - 1  #: the sun is behind the houses
        self.ends = np.asarray([lot["z"] for lot in lots])
        self.kind = np.asarray([lot["kind"] for lot in lots])
        self.values: dict[str, Floats] = {
            key: np.asarray([lot[key] for lot in lots], dtype=np.float32)
            for key in ("height", "hedge", "gable", "pitch", "storey", "open", "shop")
        }
        self.rise, self.offset = grid
        # depth of the facade line
        self.wall = np.maximum(camera.focal * self.walk / np.maximum(np.abs(self.offset), 0.5), 0.1)
        self.lot = np.searchsorted(self.ends, self.wall)


def paint_side(
    camera: Camera,
    weather: Weather,
    street: Street,
    side: int,
    lots: list[dict[str, Any]],
    first: int,
    grid: tuple[Floats, Floats],
    layers: Layers,
) -> None:
    """Draw the houses, hedges and alleys of one side into the layers. ``first`` is the index of its first material.

    ``grid`` is ``rise`` (H, 1), pixels above the horizon, and ``offset`` (W,), right of the vanishing point.
    """
    rise, offset = grid
    columns = np.flatnonzero(offset > 0 if side else offset < 0)
    row = _Side(camera, weather, street, side, lots, (rise, offset[columns]))
    here = layers.columns(int(columns[0]), int(columns[-1]))
    _ground_beyond(row, here)
    _houses(row, first, here)
    _hedges(row, here)


def _ground_beyond(side: _Side, layers: Layers) -> None:
    """Draw the ground beyond the sidewalk, and the shadow of houses in front of the sun."""
    depth = side.camera.focal * side.camera.eye / np.maximum(-side.rise, 0.5)
    row = np.searchsorted(side.ends, depth[:, 0])
    across, below = np.abs(side.offset) * depth / side.camera.focal, side.rise < 0
    outside = below & (across > side.walk)
    layers.material[outside & (side.kind[row] == YARD)[:, None]] = GRASS
    layers.material[below & (across > side.road) & (side.kind[row] == ALLEY)[:, None]] = ASPHALT
    if side.shaded:
        reach = side.walk - 0.35 * side.values["height"][row][:, None]
        layers.light[below & (across > reach)] *= 0.55


def _houses(side: _Side, first: int, layers: Layers) -> None:
    """Draw the facades. In a gap, the front of the next house faces the camera."""
    camera, values, ends, wall = side.camera, side.values, side.ends, side.wall
    front = (side.kind[side.lot] == YARD) | (side.kind[side.lot] == ALLEY)
    shown = np.minimum(side.lot + front, len(ends) - 1)
    place = np.where(front, ends[np.minimum(side.lot, len(ends) - 2)], wall).astype(np.float32)
    along = np.where(front, np.abs(side.offset) * place / camera.focal, wall).astype(np.float32)
    level = camera.eye + side.rise * (place / camera.focal)  # (H, w) metres above the ground
    top = values["height"][shown]
    peak = top + values["gable"][shown] * (1 - np.abs(2 * ((along / 9) % 1) - 1)) * (top > 0)
    part = _parts_of_house(side, shown, place, along, level)
    part += first + 5 * shown
    inside = (level > 0) & (level < peak)
    np.copyto(layers.material, part, where=inside)
    np.copyto(layers.keep, np.exp(-side.weather.haze * place), where=inside)
    dim = np.where(front, 0.9, 0.6 if side.shaded else 1.0) * (0.9 + 0.1 * np.cos(along * 3))
    np.copyto(layers.light, dim.astype(np.float32), where=inside)


def _parts_of_house(
    side: _Side, shown: NDArray[np.intp], place: Floats, along: Floats, level: Floats
) -> NDArray[np.intp]:
    """(H, w) wall, window, lit window, shop or roof, for the house that each column shows.

    Args:
        shown: (w,) the house.
        place: (w,) its distance, metres.
        along: (w,) metres along its facade.
        level: (H, w) metres above the ground.
    """
    values = side.values
    cell, storey = along / values["pitch"][shown], level / values["storey"][shown]
    left, right, low, high = values["open"][shown].T
    window = (cell % 1 > left) & (cell % 1 < right) & (place < 70) & (storey % 1 > low) & (storey % 1 < high)
    part = np.full(level.shape, WALL, dtype=np.intp)
    part[window] = WINDOW
    if side.weather.night:
        lit = (cell.astype(int) * 7 + storey.astype(int) * 13 + shown * 5) % 3 == 0
        part[window & lit] = LIT
    shop = values["shop"][shown]
    part[(level < shop) & ((level > 0.8 * shop) | (cell % 1 > 0.85))] = SHOP
    np.copyto(part, ROOF, where=level > values["height"][shown] - 0.25)
    return part


def _hedges(side: _Side, layers: Layers) -> None:
    """Draw hedges along the sidewalk, in front of yards."""
    wall = side.wall
    bush = side.camera.eye + side.rise * (wall / side.camera.focal)
    edge = side.values["hedge"][side.lot] * (1 + 0.12 * np.sin(wall * 2.1))
    hedge = (bush > 0) & (bush < edge)
    layers.material[hedge] = HEDGE
    np.copyto(layers.light, 0.7 + 0.35 * bush / np.maximum(edge, 0.1), where=hedge)
    np.copyto(layers.keep, np.exp(-side.weather.haze * wall), where=hedge)

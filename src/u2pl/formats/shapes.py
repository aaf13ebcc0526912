"""Masks -> polygons with holes, and polygons -> masks. A pixel belongs to a polygon if its centre does.

The pixel in row r and column c covers [c, c + 1] x [r, r + 1], as in COCO, CVAT, Label Studio and LabelMe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from contourpy import FillType, contour_generator

from u2pl.errors import InputError

Ring = npt.NDArray[np.float64]  #: (N, 2) x, y; the last point is joined to the first
_CROSSINGS = 2**22  # of borders with rows, worked out at a time
Number = TypeVar("Number", bound=np.generic)

#: Tolerance of polygons at which no pixel changes: borders pass pixel centres at a distance of sqrt(1/8) = 0.354.
EXACT = 0.35


@dataclass(frozen=True)
class Window:
    """Some pixels of an image, in a box."""

    top: int
    left: int
    pixels: npt.NDArray[np.bool_]  #: (h, w)

    @property
    def bottom(self) -> int:
        return self.top + self.pixels.shape[0]

    @property
    def right(self) -> int:
        return self.left + self.pixels.shape[1]

    def of(self, image: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """The box of a (H, W) image, which can be written to."""
        return image[self.top : self.bottom, self.left : self.right]

    def paint(self, mask: npt.NDArray[np.uint8], value: int) -> None:
        """Write a value into the pixels of a (H, W) mask, as far as they are inside."""
        top, left = max(0, self.top), max(0, self.left)
        box = mask[top : max(top, self.bottom), left : max(left, self.right)]
        inside = self.pixels[top - self.top :, left - self.left :][: box.shape[0], : box.shape[1]]
        box[inside] = value

    def within(self, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """(H, W), the pixels in the whole image."""
        image = np.zeros(size, dtype=bool)
        self.of(image)[:] = self.pixels
        return image


@dataclass(frozen=True)
class Region:
    """A connected part of a mask."""

    rings: tuple[Ring, ...]  #: the border, then one ring for each hole

    @cached_property
    def window(self) -> Window:
        """Its pixels."""
        return _filled(self.rings)

    def simplified(self, tolerance: float) -> list[Ring]:
        """The rings with fewer points, by Douglas and Peucker: the border moves by at most ``tolerance`` pixels.

        Where a tolerance above 0.35 would make lines cross, it is 0.35.
        """
        shapely = require_polygons()
        closed = [np.concatenate([ring, ring[:1]]) for ring in self.rings]
        of_ring = np.repeat(np.arange(len(closed)), [len(ring) for ring in closed])
        lines = shapely.simplify(
            shapely.linestrings(np.concatenate(closed), indices=of_ring), tolerance, preserve_topology=False
        )
        points, of_line = shapely.get_coordinates(lines, return_index=True)
        found = [ring[:-1] for ring in np.split(points, np.flatnonzero(np.diff(of_line)) + 1)]
        if tolerance > EXACT and not (min(map(len, found)) > 2 and shapely.Polygon(found[0], found[1:]).is_valid):
            return self.simplified(EXACT)
        return found

    def one_ring(self, tolerance: float = EXACT) -> Ring:
        """The simplified border with its holes. Two lines at the same place, a seam, lead to each hole."""
        border, *holes = self.simplified(tolerance)
        for hole in sorted(holes, key=lambda ring: float(ring[:, 0].min())):  # what lies to the left is joined before
            border = _joined(border, hole)
        return border


def regions(member: npt.NDArray[np.bool_]) -> list[Region]:
    """The connected parts of a (H, W) mask. Their pixels are disjoint, and together they are the mask."""
    rows, columns = np.flatnonzero(member.any(axis=1)), np.flatnonzero(member.any(axis=0))
    if not rows.size:
        return []
    top, left = rows[0], columns[0]
    box = np.pad(member[top : rows[-1] + 1, left : columns[-1] + 1], 1).astype(np.float64)
    lines = contour_generator(z=box, fill_type=FillType.OuterOffset).filled(0.5, 2.0)
    shift = np.array([left - 0.5, top - 0.5])  # from the padded box, where points are centres, to the image
    found = []
    for points, offsets in zip(*lines, strict=True):
        ends = offsets[1:-1].astype(np.int64)
        found.append(Region(tuple(ring[:-1] + shift for ring in np.split(points, ends))))
    return found


def rings_of(rings: Sequence[Ring], size: tuple[int, int]) -> Window:
    """The pixels of a (H, W) image whose centres are inside of rings, by the even-odd rule."""
    points = np.concatenate(rings)
    left, top = np.floor(points.min(axis=0)).clip(0, size[::-1]).astype(int)
    right, bottom = np.ceil(points.max(axis=0)).clip(0, size[::-1]).astype(int)
    height, width = max(0, bottom - top), max(0, right - left)
    toggles = np.zeros(height * (width + 1), dtype=bool)
    edges = np.concatenate([points, np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])], axis=1)
    edges -= (left, top, left, top)
    step = max(1, _CROSSINGS // max(1, height))  # edges at a time
    for first in range(0, len(edges), step):
        row, column = _crossings(edges[first : first + step], height, width)
        places, times = np.unique(row * (width + 1) + column, return_counts=True)
        toggles[places[times % 2 == 1]] ^= True
    inside = np.logical_xor.accumulate(toggles.reshape(height, width + 1)[:, :width], axis=1)
    return Window(int(top), int(left), inside)


def _filled(rings: Sequence[Ring]) -> Window:
    right, bottom = np.ceil(rings[0].max(axis=0)).astype(int)
    return rings_of(rings, (bottom, right))


def _crossings(edges: Ring, height: int, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where (N, 4) edges cross lines through the centres of rows: the row, and the first column right of it."""
    x0, y0, x1, y1 = edges.T
    first = np.ceil(np.minimum(y0, y1) - 0.5).clip(0, height).astype(np.int64)
    last = np.ceil(np.maximum(y0, y1) - 0.5).clip(0, height).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(edges)), count)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) * slope
    return row, np.ceil(x - 0.5).clip(0, width).astype(np.int64)


def _joined(border: Ring, hole: Ring) -> Ring:
    """One ring of two: from the leftmost point of the hole, a seam leads left to the border."""
    hole = np.roll(hole, -int(np.lexsort((hole[:, 1], hole[:, 0]))[0]), axis=0)
    x, y = hole[0]
    (x0, y0), (x1, y1) = border.T, np.roll(border, -1, axis=0).T
    crosses = (y0 <= y) != (y1 <= y)
    at = np.full(len(border), -np.inf)
    at[crosses] = (x0 + (y - y0) * (x1 - x0) / np.where(crosses, y1 - y0, 1))[crosses]
    at[at > x + 1e-6] = -np.inf
    edge = int(at.argmax())
    start = np.array([at[edge], y])
    if not np.isfinite(at[edge]):  # the hole touches the border there
        edge = int(((border - hole[0]) ** 2).sum(axis=1).argmin())
        start = border[edge]
    return np.concatenate([border[: edge + 1], [start], hole, hole[:1], [start], border[edge + 1 :]])


def require_polygons() -> Any:
    """The package that simplifies polygons. Raises InputError without it."""
    try:
        import shapely
    except ImportError as error:
        raise InputError("polygons need the package shapely; run: pip install 'u2pl[formats]'") from error
    return shapely

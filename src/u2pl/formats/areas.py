"""Objects in files of annotations, each an area of pixels: polygons, boxes, ellipses and small pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from u2pl.errors import InputError
from u2pl.formats.shapes import Ring, Window, rings_of

Mask = npt.NDArray[np.uint8]
_POINTS = 360  # of an ellipse: one of 1000 pixels is wrong by 0.04


@dataclass(frozen=True)
class Shape:
    """An object in a file of annotations. ``paint`` writes a value into the pixels of a (H, W) mask."""

    label: str
    paint: Callable[[Mask, int], None]


def polygon(label: str, rings: Sequence[Sequence[float]], *, where: str) -> Shape:
    """A shape from flat lists ``x, y, x, y, ...``; further rings are holes. Pixels belong to it by their centres.

    What lies outside the image is cut off, and where the border crosses itself, the even-odd rule decides. Raises
    InputError, which begins with ``where``, for fewer than three points.
    """
    for ring in rings:
        if len(ring) % 2:
            raise InputError(f"{where}: a polygon has {len(ring)} coordinates, an odd number; correct it in the tool")
        if len(ring) < 6:
            raise InputError(f"{where}: a polygon has {len(ring) // 2} points; delete it in the tool, or draw it anew")
    return _filled(label, [np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in rings], where)


def box(
    label: str,
    corners: tuple[float, float, float, float],
    *,
    where: str,
    turned: float = 0.0,
    about: tuple[float, float] | None = None,
) -> Shape:
    """The area in ``left, top, right, bottom``, ``turned`` by degrees, clockwise, ``about`` a point or the centre."""
    left, top, right, bottom = corners
    points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=np.float64)
    centre = ((left + right) / 2, (top + bottom) / 2)
    return _filled(label, [_turned(points, turned, about or centre)], where)


def ellipse(
    label: str, centre: tuple[float, float], radii: tuple[float, float], *, where: str, turned: float = 0.0
) -> Shape:
    """The area of an ellipse with horizontal and vertical ``radii``, ``turned`` by degrees (clockwise)."""
    angles = np.linspace(0, 2 * math.pi, _POINTS, endpoint=False)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii + centre
    return _filled(label, [_turned(points, turned, centre)], where)


def picture(label: str, window: Window, *, where: str) -> Shape:
    """The pixels of a window. What lies outside the image is cut off."""

    def paint(mask: Mask, value: int) -> None:
        outside = window.left >= mask.shape[1] or window.top >= mask.shape[0] or min(window.right, window.bottom) <= 0
        _refuse(outside, label, mask, where)
        window.paint(mask, value)

    return Shape(label, paint)


def _filled(label: str, rings: Sequence[Ring], where: str) -> Shape:
    outer = rings[0]

    def paint(mask: Mask, value: int) -> None:
        outside = (outer.min(axis=0) >= mask.shape[::-1]).any() or (outer.max(axis=0) <= 0).any()
        _refuse(outside, label, mask, where)
        rings_of(rings, mask.shape[:2]).paint(mask, value)

    return Shape(label, paint)


def _refuse(outside: bool | np.bool_, label: str, mask: Mask, where: str) -> None:
    if outside:
        raise InputError(
            f"{where}: an area of {label} lies outside of the image, which is {mask.shape[1]}x{mask.shape[0]} "
            "(width x height); these are annotations of another image or size"
        )


def _turned(points: Ring, degrees: float, about: tuple[float, float]) -> Any:
    """(N, 2) points, turned clockwise: y grows downwards."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return (points - about) @ np.array([[cosine, sine], [-sine, cosine]]) + about

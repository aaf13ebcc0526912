"""Charts as inline SVG: their geometry. A template draws them, so that it escapes every name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 40
_MOST = 300  # points of a line
_MARKED = 8  # of them, with a marker
_LISTED = 10  # of them, in the table below the chart

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A named line."""

    label: str
    points: Sequence[Point]

    def thinned(self, most: int) -> list[Point]:
        """At most this many of the points, evenly spread, with the first and the last."""
        if len(self.points) <= most:
            return list(self.points)
        last = len(self.points) - 1
        return [self.points[round(place * last / (most - 1))] for place in range(most)]


@dataclass(frozen=True)
class Chart:
    """Lines over a common axis, at least one with a point."""

    title: str
    lines: Sequence[Line]
    unit: str = ""
    across: str = "step"
    note: str = ""
    square: bool = False  #: both axes from 0 to 1, with a diagonal

    @property
    def size(self) -> tuple[int, int]:
        return (340, 300) if self.square else (WIDTH, HEIGHT)

    @property
    def summary(self) -> str:
        """What a reader who sees no picture should know."""
        return "; ".join(
            f"{line.label}: {number(line.points[0][1])} at {number(line.points[0][0])}, "
            f"{number(line.points[-1][1])} at {number(line.points[-1][0])}"
            for line in self.lines
            if line.points
        )

    def ticks(self) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
        """Places in the drawing and numbers of the ticks, across and up."""
        (left, right), (low, high) = self._bounds()
        across = [
            value
            for value in MaxNLocator(5, integer=not self.square).tick_values(left, right)
            if left <= value <= right
        ]
        up = [value for value in MaxNLocator(5).tick_values(low, high) if low <= value <= high]
        return (
            [(round(self._place((value, low))[0], 1), number(value)) for value in across],
            [(round(self._place((left, value))[1], 1), number(value)) for value in up],
        )

    def paths(self) -> list[tuple[str, str, list[Point]]]:
        """Label, points of a polyline, and places of markers of each line."""
        drawn = []
        for line in self.lines:
            places = [self._place(point) for point in line.thinned(_MOST)]
            text = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            drawn.append((line.label, text, [self._place(point) for point in line.thinned(_MARKED)]))
        return drawn

    def diagonal(self) -> tuple[Point, Point]:
        """The ends of the line on which a calibrated network lies."""
        return self._place((0, 0)), self._place((1, 1))

    def frame(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the plot inside the drawing."""
        width, height = self.size
        return _LEFT, _TOP, width - _RIGHT, height - _BOTTOM

    def table(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Some of the numbers of each line, as text."""
        return [(line.label, [(number(x), number(y)) for x, y in line.thinned(_LISTED)]) for line in self.lines]

    def _bounds(self) -> tuple[Point, Point]:
        if self.square:
            return (0, 1), (0, 1)
        points = [point for line in self.lines for point in line.points]
        (left, right), (low, high) = ((min(each), max(each)) for each in zip(*points, strict=True))
        low, high = min(0.0, low), high if high > min(0.0, low) else low + 1
        return (left, right if right > left else left + 1), (low, high + 0.04 * (high - low))

    def _place(self, point: Point) -> Point:
        (start, end), (low, high) = self._bounds()
        left, top, right, bottom = self.frame()
        x = left + (point[0] - start) / (end - start) * (right - left)
        return x, bottom - (point[1] - low) / (high - low) * (bottom - top)


def number(value: float) -> str:
    """A number in at most about five characters."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"

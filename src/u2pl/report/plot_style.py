"""The style of plots: readable without colours, and for colour-blind readers."""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from u2pl.printable import printable

#: Okabe and Ito's colours, which nearly everyone can distinguish; without yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
GRAY = "#666666"
DPI = 150
_LINES = 3  # of a name
MIOU = "validation mIoU (%)"


def look_of(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of a line."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
    }


def figure_of(width: float, height: float) -> Figure:
    """An empty figure of this size in inches, without a window and without global state."""
    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def tidy(axes: Axes) -> None:
    """Set a light grid, and remove the frame at the top and at the right."""
    axes.grid(visible=True, color="#DDDDDD", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def drawable(text: str) -> str:
    """A text that matplotlib draws as it is: no formula, no character that the font lacks, no hidden label."""
    known = _characters()
    shown = "".join(c if ord(c) in known else c.encode("unicode_escape").decode("ascii") for c in printable(text))
    shown = shown.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown  # a legend leaves out labels that begin with it


def wrapped(text: str, width: int = 26) -> str:
    """A long name on at most a few lines, as :func:`drawable` text."""
    lines = textwrap.wrap(printable(text), width)
    if len(lines) > _LINES:
        lines = [*lines[: _LINES - 1], f"{lines[_LINES - 1][: width - 3]}..."]
    return "\n".join(map(drawable, lines))


@cache
def _characters() -> frozenset[int]:
    """The characters of the font of all plots."""
    return frozenset(get_font(findfont(FontProperties())).get_charmap())


def save(figure: Figure, path: Path) -> None:
    """Write a png, whatever the suffix of the path."""
    figure.savefig(path, format="png")

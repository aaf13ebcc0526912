"""The style of plots: readable without colours, and for colour-blind readers."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Okabe and Ito's colours, which nearly everyone can distinguish; without yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
GRAY = "#666666"
DPI = 150
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


def wrapped(text: str, width: int = 26) -> str:
    """A long name on several lines. Dollar signs are escaped, so they do not start a formula."""
    return "\n".join(textwrap.wrap(text, width)).replace("$", r"\$")


def save(figure: Figure, path: Path) -> None:
    """Write a png, whatever the suffix of the path."""
    figure.savefig(path, format="png")

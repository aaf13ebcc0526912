"""What a report shows, and how it becomes one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from u2pl.data.classes import Palette
from u2pl.engine.bootstrap import Gain
from u2pl.errors import InputError
from u2pl.printable import printable
from u2pl.report.grid import Grid
from u2pl.report.html.charts import Chart
from u2pl.report.html.gallery import Gallery

SIGNATURE = '<meta name="generator" content="u2pl report">'  #: in the files that a report may replace


@dataclass(frozen=True)
class RunRow:
    """One run, in numbers. Scores are in percent."""

    name: str
    about: str  #: what was trained on what, one sentence
    miou: float | None = None  #: None: the run has no validation images
    interval: tuple[float, float] | None = None  #: 95 %, over draws of images; None: too few of them, or of groups
    images: int = 0  #: validation images
    groups: int | None = None  #: of these images, that are drawn whole; None: each image is drawn by itself
    iou: Mapping[str, float | None] = field(default_factory=dict)
    gain: Gain | None = None  #: over the supervised run


@dataclass(frozen=True)
class Picture:
    """A picture of the first screen."""

    uri: str
    alt: str


@dataclass(frozen=True)
class ClassBar:
    """IoU of a class in percent, in this run and in the other one."""

    name: str
    colour: str
    iou: float | None
    other: float | None


@dataclass(frozen=True)
class Page:
    """Everything that a report shows, worked out."""

    title: str
    run: RunRow
    runs: Sequence[RunRow] = ()  #: all runs, with this one, if there are several
    gain: Gain | None = None  #: over labels alone
    gain_over: str = ""  #: what the gain is measured against
    classes: Sequence[str] = ()
    palette: Palette = ()
    other: str = ""  #: the name of the run in the second bar of a class
    pictures: Sequence[Picture] = ()
    charts: Sequence[Chart] = ()
    confusion: Tensor | None = None  #: (C, C) int64, by true class (row) and predicted class
    confusion_of: str = ""  #: which images it counts
    calibration: Chart | None = None
    calibration_error: float = 0.0
    choices: Sequence[str] = ()  #: lines of ``choices.txt``
    gallery: Gallery | None = None
    gallery_of: str = ""  #: which images it shows
    notes: Sequence[str] = ()  #: what is left out, and why
    table: Grid | None = None  #: of a comparison

    @property
    def bars(self) -> list[ClassBar]:
        """A bar for each class."""
        others = [row.iou for row in self.runs if row.name == self.other]
        other = others[0] if others else {}
        return [
            ClassBar(name, hexadecimal(self.palette, number), self.run.iou.get(name), other.get(name))
            for number, name in enumerate(self.classes)
        ]

    @property
    def ranked(self) -> list[tuple[float, str]]:
        """IoU and name of each class that occurs, the worst first."""
        return sorted((value, name) for name, value in self.run.iou.items() if value is not None)

    @property
    def rows(self) -> list[tuple[str, int, list[tuple[str, int, float]]]]:
        """True class, number of pixels, and predicted class, pixels and share of them for each column."""
        if self.confusion is None:
            return []
        found = []
        for name, counts in zip(self.classes, self.confusion.tolist(), strict=True):
            total = sum(counts)
            shares = [count / total if total else 0.0 for count in counts]
            found.append((name, total, list(zip(self.classes, counts, shares, strict=True))))
        return found

    @property
    def data(self) -> dict[str, Any]:
        """What the script of the gallery needs."""
        if self.gallery is None:
            return {}
        return {
            "classes": [printable(name) for name in self.classes],
            "palette": [list(colour) for colour in self.gallery.palette],
            "values": list(self.gallery.values),
            "pixels": list(self.gallery.pixels),
            "cards": [
                {
                    "name": printable(card.name),
                    "score": round(card.score, 1),
                    "width": card.width,
                    "height": card.height,
                }
                for card in self.gallery.cards
            ],
        }


def hexadecimal(palette: Palette, number: int) -> str:
    """A colour as ``#rrggbb``; gray for a class without one."""
    red, green, blue = palette[number] if number < len(palette) else (128, 128, 128)
    return f"#{red:02x}{green:02x}{blue:02x}"


def require_templates() -> None:
    """Raise InputError if the template engine is missing."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise InputError("a report needs Jinja2, which is not installed; pip install 'u2pl[report]'") from error


def render(page: Page) -> str:
    """The page as one HTML file. Text is escaped. Raises InputError if the template engine is missing."""
    require_templates()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("u2pl.report.html", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters["points"] = lambda value: f"{value:+.1f}"
    environment.filters["percent"] = lambda value: "-" if value is None else f"{value:.1f}"
    return environment.get_template("page.html.j2").render(page=page)

"""Masks of colours, with a legend that `data.mask_values` reads, too: classes.csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from u2pl.data.mask_values import IGNORED, mask_values
from u2pl.formats.mask_pictures import Colour, MaskFile, colour_png
from u2pl.formats.png import legend_at, masks_at
from u2pl.formats.structure import Annotated, Annotations, Classes, Drawing, Files

LEGEND = "classes.csv"


def write(item: Annotated, classes: Classes, how: Drawing) -> tuple[Files, str]:
    """The mask at the path of its image."""
    return {f"masks/{item.stem}.png": colour_png(item.mask, classes.palette, _ignored(classes))}, item.stem


def finish(records: Sequence[str], classes: Classes, how: Drawing) -> Files:
    """The legend."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("r", "g", "b", "class"))
    for name, colour in zip([*classes.names, IGNORED], [*classes.palette, _ignored(classes)], strict=True):
        rows.writerow((*colour, name))
    return {LEGEND: text.getvalue().encode()}


def _ignored(classes: Classes) -> Colour:
    """White, or if that is a class, another light colour."""
    return next((n, n, n) for n in range(255, 0, -1) if (n, n, n) not in classes.palette)


def read(place: Path) -> Annotations:
    """Read all masks beside a classes.csv, or in the folder ``masks`` beside it. Raises InputError without one."""
    legend = legend_at(place, LEGEND, "the columns r,g,b,class, a line a colour")
    values = mask_values(str(legend))
    images = [MaskFile(file, path, values.classes, values) for file, path in masks_at(place, legend)]
    return Annotations(images, values.classes, palette=dict(zip(values.classes, values.palette(), strict=False)))

"""Formats of annotation tools, both ways. Each module has ``write`` and ``finish`` (masks -> files) and ``read``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from u2pl.formats import coco, colours, cvat, label_studio, labelme, png, supervisely, voc
from u2pl.formats.structure import UNSURE, Annotated, Annotations, Classes, Drawing, Files

__all__ = ["FORMATS", "UNSURE", "Annotated", "Annotations", "Classes", "Drawing", "Files", "Format"]


class Format(NamedTuple):
    """What the module of a format does."""

    #: The files of one image, and what ``finish`` needs of it.
    write: Callable[[Annotated, Classes, Drawing], tuple[Files, Any]]
    #: The files of all images together.
    finish: Callable[[Sequence[Any], Classes, Drawing], Files]
    #: What a file or folder says. Raises InputError for one of another tool or a damaged one.
    read: Callable[[Path], Annotations]
    #: Values of ``Drawing.shapes``, the usual one first.
    shapes: tuple[str, ...] = ("polygons", "rle")


FORMATS = {
    "png": Format(png.write, png.finish, png.read, ("masks",)),
    "colour-png": Format(colours.write, colours.finish, colours.read, ("masks",)),
    "coco": Format(coco.write, coco.finish, coco.read),
    "cvat": Format(cvat.write, cvat.finish, cvat.read, ("polygons", "rle", "masks")),
    "label-studio": Format(label_studio.write, label_studio.finish, label_studio.read),
    "labelme": Format(labelme.write, labelme.finish, labelme.read),
    "supervisely": Format(supervisely.write, supervisely.finish, supervisely.read),
    "voc": Format(voc.write, voc.finish, voc.read, ("masks",)),
}

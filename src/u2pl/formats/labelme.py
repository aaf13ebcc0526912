"""LabelMe: a json beside each image. ``rle`` shapes are LabelMe's masks: a png of the box around an object."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from io import BytesIO
from math import dist
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from u2pl.errors import InputError, quoted
from u2pl.formats.areas import Shape, box, ellipse, picture, polygon
from u2pl.formats.pictures_in_json import pixels_from
from u2pl.formats.reading import Coordinate, Record, Side, is_json, parsed, some_files
from u2pl.formats.shapes import Window
from u2pl.formats.structure import (
    Annotated,
    Annotations,
    Classes,
    Drawing,
    Drawn,
    Files,
    Part,
    checked_size,
    notes_on,
    parts_of,
)

_VERSION = "5.5.0"  # of LabelMe, whose files these are
_WITHOUT_AREA = ("point", "points", "line", "linestrip")


def write(item: Annotated, classes: Classes, how: Drawing) -> tuple[Files, str]:
    """The json of the image, to be moved beside it."""
    shapes: list[dict[str, Any]] = []
    for number, part in enumerate(parts_of(item, how)):
        confidence = "" if part.confidence is None else f"confidence {part.confidence}"
        for shape in _shapes(part, how):
            shapes.append(
                {
                    "label": classes.names[part.label],
                    "group_id": number if len(part.regions) > 1 and how.shapes == "polygons" else None,
                    "description": confidence,
                    "flags": {},
                    **shape,
                }
            )
    height, width = item.size
    whole: dict[str, Any] = {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": PurePosixPath(item.file).name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    return {f"{item.stem}.json": json.dumps(whole).encode()}, item.stem


def finish(records: Sequence[str], classes: Classes, how: Drawing) -> Files:
    """Nothing more: LabelMe takes the classes.txt of every export, as ``labelme --labels classes.txt``."""
    return {}


def _shapes(part: Part, how: Drawing) -> list[dict[str, Any]]:
    if how.shapes == "polygons":
        rings = part.polygons(how.tolerance)
        return [{"shape_type": "polygon", "points": ring.round(3).tolist(), "mask": None} for ring in rings]
    data, window = BytesIO(), part.window
    Image.fromarray(window.pixels.astype(np.uint8) * 255).save(data, format="PNG")
    corners = [[int(window.left), int(window.top)], [int(window.right) - 1, int(window.bottom) - 1]]
    mask = base64.b64encode(data.getvalue()).decode()
    return [{"shape_type": "mask", "points": corners, "mask": mask}]


class _Shape(Record):
    label: str
    points: list[tuple[Coordinate, Coordinate]]
    shape_type: str | None = "polygon"
    mask: str | None = None


class _File(Record):
    shapes: list[_Shape]
    image_path: str = Field(alias="imagePath", min_length=1)
    height: Side | None = Field(default=None, alias="imageHeight")
    width: Side | None = Field(default=None, alias="imageWidth")


def read(place: Path) -> Annotations:
    """Read a json, or all below a folder. Later shapes cover earlier ones."""
    paths = [place] if place.is_file() else some_files(place, is_json, "json")
    home = place.parent if place.is_file() else place
    images = [_image(path, home) for path in paths]
    return Annotations(images, notes=notes_on(images))


def _image(path: Path, home: Path) -> Drawn:
    file = parsed(_File, path, "LabelMe")
    name = PurePosixPath(file.image_path.replace("\\", "/")).name
    size = None if not (file.height and file.width) else checked_size(file.height, file.width, str(path))
    shapes = [_shape(each, str(path)) for each in file.shapes]
    return Drawn.of((path.relative_to(home).parent / name).as_posix(), size, shapes)


def _shape(each: _Shape, where: str) -> Shape | None:
    corners = len(each.points) == 2
    if each.shape_type in _WITHOUT_AREA:
        return None
    if each.shape_type in ("polygon", None) or (each.shape_type == "rectangle" and not corners):  # turned, in forks
        return polygon(each.label, [[value for point in each.points for value in point]], where=where)
    if each.shape_type == "rectangle":
        return box(each.label, (*each.points[0], *each.points[1]), where=where)
    if each.shape_type == "circle" and corners:
        radius = dist(*each.points)  # from the centre to a point on the circle
        return ellipse(each.label, each.points[0], (radius, radius), where=where)
    if each.shape_type == "mask" and corners and each.mask is not None:
        (left, top), (right, bottom) = ((int(x), int(y)) for x, y in each.points)
        pixels = pixels_from(each.mask, where=where, packed=False)
        if pixels.shape != (bottom - top + 1, right - left + 1):
            raise InputError(f"{where}: the mask of {each.label} has another size than its box; draw it anew")
        return picture(each.label, Window(top, left, pixels), where=where)
    raise InputError(f"{where}: a {quoted(each.shape_type)} of {each.label} cannot be read; draw it as polygon")

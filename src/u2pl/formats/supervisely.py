"""Supervisely: a project with meta.json, and a json for each image in DATASET/ann.

https://docs.supervisely.com/data-organization/import-export/supervisely-format. Points are centres of pixels here:
half a pixel less than in the other formats. ``rle`` shapes are bitmaps.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from u2pl.errors import InputError, quoted
from u2pl.formats.areas import Shape, box, picture, polygon
from u2pl.formats.pictures_in_json import pixels_from
from u2pl.formats.reading import Coordinate, Record, Side, is_json, parsed, some_files, the_file
from u2pl.formats.shapes import Region, Window
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

META = "meta.json"
_TOP = "ds0"  # Supervisely's name for the first data set: here, images without a folder
_OF_IMAGES = "ann"
_BELOW = "datasets"  # the folder for data sets inside of a data set
_CONFIDENCE = "confidence"
_WITHOUT_AREA = ("point", "line", "graph")


def write(item: Annotated, classes: Classes, how: Drawing) -> tuple[Files, str]:
    """The json of the image. Folders of images become data sets."""
    height, width = item.size
    objects = []
    for part in parts_of(item, how):
        tags = [] if part.confidence is None else [{"name": _CONFIDENCE, "value": part.confidence}]
        common = {"classTitle": classes.names[part.label], "description": "", "tags": tags}
        objects += [{**common, **geometry} for geometry in _geometries(part, how)]
    whole = {"description": "", "tags": [], "size": {"height": height, "width": width}, "objects": objects}
    *folders, name = PurePosixPath(item.file).parts
    dataset = f"/{_BELOW}/".join(folders or [_TOP])
    return {f"{dataset}/ann/{name}.json": json.dumps(whole).encode()}, item.stem


def finish(records: Sequence[str], classes: Classes, how: Drawing) -> Files:
    """The classes and tags of the project."""
    shape = "polygon" if how.shapes == "polygons" else "bitmap"
    titles = [
        {"title": name, "shape": shape, "color": colour.upper(), "geometry_config": {}, "hotkey": ""}
        for name, colour in zip(classes.names, classes.hex, strict=True)
    ]
    tags = [{"name": _CONFIDENCE, "value_type": "any_number", "color": "#808080", "hotkey": "", "values": []}]
    return {META: json.dumps({"classes": titles, "tags": tags, "projectType": "images"}).encode()}


def _geometries(part: Part, how: Drawing) -> list[dict[str, Any]]:
    if how.shapes == "polygons":
        return [_polygon(region, how) for region in part.regions]
    window, png, data = part.window, Image.fromarray(part.window.pixels.astype(np.uint8)), BytesIO()
    png.putpalette([0, 0, 0, 255, 255, 255])
    png.save(data, format="PNG", transparency=0, bits=1)
    text = base64.b64encode(zlib.compress(data.getvalue())).decode()
    return [{"geometryType": "bitmap", "bitmap": {"data": text, "origin": [int(window.left), int(window.top)]}}]


def _polygon(region: Region, how: Drawing) -> dict[str, Any]:
    exterior, *interior = ((ring - 0.5).round(3).tolist() for ring in region.simplified(how.tolerance))
    return {"geometryType": "polygon", "points": {"exterior": exterior, "interior": interior}}


class _Size(Record):
    height: Side
    width: Side


class _Points(Record):
    exterior: tuple[tuple[Coordinate, Coordinate], ...] = ()
    interior: tuple[tuple[tuple[Coordinate, Coordinate], ...], ...] = ()


class _Bitmap(Record):
    data: str
    origin: tuple[int, int]


class _Object(Record):
    title: str = Field(alias="classTitle")
    kind: str = Field(alias="geometryType")
    points: _Points = _Points()
    bitmap: _Bitmap | None = None


class _Image(Record):
    size: _Size
    objects: list[_Object]


class _Class(Record):
    title: str
    color: str = Field(pattern="^#[0-9a-fA-F]{6}$")


class _Meta(Record):
    classes: list[_Class]


def read(place: Path) -> Annotations:
    """Read a project: its meta.json and all json files in folders called ``ann``. Later objects cover earlier ones."""
    file = the_file(place, lambda path: path.name == META and path.parent.name != _OF_IMAGES, META)
    home, meta = file.parent, parsed(_Meta, file, "Supervisely")
    paths = some_files(
        home, lambda path: is_json(path) and path.parent.name == _OF_IMAGES, "json in folders called ann"
    )
    colours = {each.title: bytes.fromhex(each.color[1:]) for each in meta.classes}
    palette = {name: (value[0], value[1], value[2]) for name, value in colours.items()}
    images = [_image(path, home) for path in paths]
    return Annotations(images, tuple(palette), palette, notes_on(images))


def _image(path: Path, home: Path) -> Drawn:
    file = parsed(_Image, path, "Supervisely")
    folders = path.relative_to(home).parts[:-2]
    folders = tuple(name for number, name in enumerate(folders) if number % 2 == 0 or name != _BELOW)
    name = PurePosixPath(*(folders if folders != (_TOP,) else ()), path.name.removesuffix(path.suffix))
    where = str(path)
    shapes = [_shape(each, where) for each in file.objects]
    return Drawn.of(str(name), checked_size(file.size.height, file.size.width, where), shapes)


def _shape(each: _Object, where: str) -> Shape | None:
    if each.kind in _WITHOUT_AREA:
        return None
    if each.kind == "bitmap" and each.bitmap is not None:
        column, row = each.bitmap.origin
        pixels = pixels_from(each.bitmap.data, where=where, packed=True)
        return picture(each.title, Window(row, column, pixels), where=where)
    if each.kind == "rectangle" and len(each.points.exterior) == 2:
        (left, top), (right, bottom) = each.points.exterior  # the last pixels belong to it
        last = (max(left, right) + 1, max(top, bottom) + 1)
        return box(each.title, (min(left, right), min(top, bottom), *last), where=where)
    if each.kind == "polygon":
        rings = [[v + 0.5 for point in ring for v in point] for ring in (each.points.exterior, *each.points.interior)]
        return polygon(each.title, rings, where=where)
    raise InputError(f"{where}: a {quoted(each.kind)} of {each.title} cannot be read; draw it as polygon or bitmap")

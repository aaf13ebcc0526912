"""COCO: one json for all images. Run lengths go down the columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated as Marked
from typing import Any

import numpy as np
from pydantic import Field, Tag

from u2pl.errors import InputError
from u2pl.formats import runs
from u2pl.formats.areas import Mask, Shape, polygon
from u2pl.formats.reading import Coordinate, Record, Side, is_json, one_of, parsed, the_file
from u2pl.formats.shapes import Window
from u2pl.formats.structure import (
    Annotated,
    Annotations,
    Classes,
    Drawing,
    Drawn,
    Files,
    Part,
    Size,
    checked_size,
    notes_on,
    parts_of,
)

#: Where COCO data sets have it, beside a folder of images.
FILE = "annotations/instances_default.json"
_LINES = ",\n"


def write(item: Annotated, classes: Classes, how: Drawing) -> tuple[Files, list[str]]:
    """No file, and the json of the image and of each object, which have no numbers yet."""
    height, width = item.size
    image = {"file_name": item.file, "height": height, "width": width}
    return {}, [
        json.dumps(each) for each in (image, *(_annotation(part, item.size, how) for part in parts_of(item, how)))
    ]


def finish(records: Sequence[list[str]], classes: Classes, how: Drawing) -> Files:
    """The json of all images. Categories are numbered from 1, as in COCO."""
    images: list[str] = []
    annotations: list[str] = []
    for number, (image, *objects) in enumerate(records, start=1):
        images.append(f'{{"id": {number}, {image[1:]}')
        for each in objects:
            annotations.append(f'{{"id": {len(annotations) + 1}, "image_id": {number}, {each[1:]}')
    categories = [{"id": n, "name": name, "supercategory": ""} for n, name in enumerate(classes.names, start=1)]
    head = json.dumps({"info": {"description": "masks drawn by u2pl"}, "licenses": [], "categories": categories})
    whole = f'{head[:-1]}, "images": [{_LINES.join(images)}], "annotations": [{_LINES.join(annotations)}]}}'
    return {FILE: whole.encode()}


def _annotation(part: Part, size: Size, how: Drawing) -> dict[str, Any]:
    window = part.window
    segmentation: Any
    if how.shapes == "polygons":
        segmentation = [ring.round(3).ravel().tolist() for ring in part.polygons(how.tolerance)]
    else:
        columns = Window(window.left, window.top, window.pixels.T)
        segmentation = {"size": [*size], "counts": runs.to_text(runs.counts_within(columns, size[::-1]))}
    height, width = window.pixels.shape
    score = {} if part.confidence is None else {"score": part.confidence}
    return {
        "category_id": part.label + 1,
        "segmentation": segmentation,
        "area": int(window.pixels.sum()),
        "bbox": [int(window.left), int(window.top), width, height],
        "iscrowd": 0,
        **score,
    }


class _Runs(Record):
    size: tuple[Side, Side]
    counts: Marked[Marked[str, Tag("text")] | Marked[list[int], Tag("list")], one_of(text=str, list=list)]


class _Annotation(Record):
    image_id: int
    category_id: int
    segmentation: Marked[
        Marked[_Runs, Tag("rle")] | Marked[list[list[Coordinate]], Tag("polygons")], one_of(rle=dict, polygons=list)
    ]
    id: int | str = "?"


class _Image(Record):
    id: int
    file_name: str = Field(min_length=1)
    height: Side
    width: Side


class _Category(Record):
    id: int
    name: str


class _File(Record):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read(place: Path) -> Annotations:
    """Read an instances file, or the only json below a folder. Later annotations cover earlier ones."""
    path = the_file(place, is_json, "json")
    file = parsed(_File, path, "COCO")
    names = {category.id: category.name for category in file.categories}
    images = {image.id: image for image in file.images}
    if len(names) < len(file.categories) or len(images) < len(file.images):
        raise InputError(f"{path}: an id of categories or images is there twice; export it again")
    shapes: dict[int, list[Shape | None]] = {number: [] for number in images}
    for each in file.annotations:
        where = f"{path}, annotation {each.id}"
        if each.image_id not in images:
            raise InputError(f"{where}: there is no image with the id {each.image_id}; export it again")
        if each.category_id not in names:
            raise InputError(f"{where}: there is no category with the id {each.category_id}; export it again")
        shapes[each.image_id] += _shapes(each, names[each.category_id], images[each.image_id], where)
    found = [
        Drawn.of(
            image.file_name, checked_size(image.height, image.width, f"{path}, {image.file_name}"), shapes[image.id]
        )
        for image in file.images
    ]
    return Annotations(found, tuple(names[number] for number in sorted(names)), notes=notes_on(found))


def _shapes(each: _Annotation, label: str, image: _Image, where: str) -> Sequence[Shape | None]:
    segmentation = each.segmentation
    if not isinstance(segmentation, _Runs):  # COCO's rings are no holes, and without a ring there is a box only
        return [polygon(label, [ring], where=where) for ring in segmentation] or [None]
    height, width = segmentation.size
    if (height, width) != (image.height, image.width):
        raise InputError(
            f"{where}: run lengths of {width}x{height} but the image {image.file_name} is {image.width}x{image.height} "
            "(width x height); export it again"
        )
    given = segmentation.counts

    def paint(mask: Mask, value: int) -> None:
        counts = runs.from_text(given, where=where) if isinstance(given, str) else runs.from_list(given, where=where)
        column, row = np.divmod(runs.places_of(counts, mask.size, where=where), len(mask))
        mask[row, column] = value

    return [Shape(label, paint)]

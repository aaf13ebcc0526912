"""Label Studio: a json list of tasks. Drafts are predictions, which annotators accept or correct.

https://labelstud.io/guide/predictions and https://labelstud.io/guide/export. Points are in percent of the image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

from pydantic import Field, RootModel

from u2pl.errors import InputError, quoted
from u2pl.formats import brush_runs
from u2pl.formats.reading import Coordinate, Record, Side, is_json, parsed, the_file
from u2pl.formats.structure import (
    Annotated,
    Annotations,
    Classes,
    Drawing,
    Drawn,
    Files,
    Mask,
    Shape,
    Size,
    checked_size,
    mean_confidence,
    parts_of,
    polygon,
)

FILE = "tasks.json"
#: Where Label Studio finds the images, if its local storage is their folder.
LOCAL_FILES = "/data/local-files/?d="
_UPLOAD = re.compile(r"/data/upload/\d+/(?:[0-9a-f]{8}-)?")
_LABELS = "labels"  # ends the types of results that are areas


def write(item: Annotated, classes: Classes, how: Drawing) -> tuple[Files, bytes]:
    """No file, and the json of the task: the image with its prediction."""
    height, width = item.size
    results: list[dict[str, Any]] = []
    for part in parts_of(item, how):
        if how.shapes == "polygons":
            values: list[dict[str, Any]] = [
                {"points": (ring * (100 / width, 100 / height)).round(6).tolist(), "closed": True}
                for ring in part.polygons(how.tolerance)
            ]
        else:
            values = [{"format": "rle", "rle": brush_runs.encode(part.window.within(item.size))}]
        kind = "polygon" if how.shapes == "polygons" else "brush"
        for value in values:
            result = {
                "id": f"u2pl{len(results)}",
                "type": f"{kind}labels",
                "from_name": kind,
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {**value, f"{kind}labels": [classes.names[part.label]]},
            }
            results.append(result if part.confidence is None else {**result, "score": part.confidence})
    prediction: dict[str, Any] = {"model_version": "u2pl", "result": results}
    score = mean_confidence(item)
    if score is not None:
        prediction["score"] = score
    data = {"image": LOCAL_FILES + quote(item.file), "height": height, "width": width}
    return {}, json.dumps({"data": data, "predictions": [prediction]}).encode()


def finish(records: Sequence[bytes], classes: Classes, how: Drawing) -> Files:
    """The tasks, and the labeling interface of the project."""
    kind = "Polygon" if how.shapes == "polygons" else "Brush"
    labels = [
        f"    <Label value={quoteattr(name)} background={quoteattr(colour)}/>"
        for name, colour in zip(classes.names, classes.hex, strict=True)
    ]
    lines = [
        "<View>",
        '  <Image name="image" value="$image" zoom="true"/>',
        f'  <{kind}Labels name="{kind.lower()}" toName="image">',
        *labels,
        f"  </{kind}Labels>",
        "</View>",
    ]
    return {FILE: b"[" + b",\n".join(records) + b"]", "labeling.xml": ("\n".join(lines) + "\n").encode()}


class _Value(Record):
    points: list[tuple[Coordinate, Coordinate]] | None = None
    rle: list[int] | None = None
    polygonlabels: list[str] | None = None
    brushlabels: list[str] | None = None


class _Result(Record):
    type: str = ""
    original_width: Side | None = None
    original_height: Side | None = None
    image_rotation: float = 0
    value: _Value = _Value()


class _Drawn(Record):
    result: list[_Result]
    was_cancelled: bool = False


class _Data(Record):
    image: str = Field(min_length=1)
    height: Side | None = None
    width: Side | None = None


class _Task(Record):
    data: _Data
    annotations: tuple[_Drawn, ...] = ()
    predictions: tuple[_Drawn, ...] = ()


class _File(RootModel[list[_Task]]):
    pass


def read(place: Path) -> Annotations:
    """Read an export in the format JSON. Of several annotations of a task, the last one counts.

    Tasks that nobody has annotated keep their predictions; those without are left out. A note says how many they are.
    """
    path = the_file(place, is_json, "json")
    tasks = parsed(_File, path, "Label Studio (JSON)").root
    images, drafts, empty = [], 0, 0
    for task in tasks:
        done = [each for each in task.annotations if not each.was_cancelled]
        drawn = done or task.predictions
        if drawn:
            images.append(_image(task.data, drawn[-1].result, path))
            drafts += not done
        else:
            empty += 1
    notes = [f"{drafts} of {len(tasks)} images have no annotation yet; their drafts are taken"] if drafts else []
    notes += [f"{empty} of {len(tasks)} images have neither annotation nor draft; they are left out"] if empty else []
    return Annotations(images, notes=tuple(notes))


def file_of(image: str) -> str:
    """The path of an image below the folder of all images, from its address in a task."""
    parts = urlsplit(image)
    if parts.query.startswith("d="):
        return unquote(parts.query[2:]).lstrip("/")
    if found := _UPLOAD.match(parts.path):
        return unquote(parts.path[found.end() :])
    return PurePosixPath(unquote(parts.path)).name if parts.scheme else unquote(image).lstrip("/")


def _image(data: _Data, results: Sequence[_Result], path: Path) -> Drawn:
    file = file_of(data.image)
    where = f"{path}, {file}"
    areas = [each for each in results if each.type.endswith(_LABELS)]
    sizes = {(each.original_height, each.original_width) for each in areas}
    if data.height and data.width:
        sizes.add((data.height, data.width))
    if len(sizes) > 1 or any(None in size for size in sizes):
        raise InputError(f"{where}: its original_width and original_height are missing or differ; export it again")
    size = None
    for height, width in sizes:
        size = checked_size(height or 0, width or 0, where)
    return Drawn(file, size, [_shape(each, size, where) for each in areas if size is not None])


def _shape(each: _Result, size: Size, where: str) -> Shape:
    value = each.value
    if each.image_rotation:
        raise InputError(f"{where}: it was rotated in Label Studio; rotate it back there, and export it again")
    labels = value.polygonlabels or value.brushlabels or []
    if len(labels) != 1:
        raise InputError(f"{where}: an area has {len(labels)} labels ({quoted(labels)}); give each one label")
    if value.points is not None:
        scaled = [coordinate * side / 100 for x, y in value.points for coordinate, side in ((x, size[1]), (y, size[0]))]
        return polygon(labels[0], [scaled], where=where)
    if value.rle is None:
        raise InputError(f"{where}: results of the type {quoted(each.type)} cannot be read; draw polygons or brushes")
    rle = value.rle

    def paint(mask: Mask, number: int) -> None:
        mask[brush_runs.decode(rle, size, where=where)] = number

    return Shape(labels[0], paint)

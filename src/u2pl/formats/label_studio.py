"""Label Studio: a json list of tasks. Drafts are predictions, which annotators accept or correct.

https://labelstud.io/guide/predictions and https://labelstud.io/guide/export. Points are in percent of the image.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pydantic import Field, RootModel, model_validator

from u2pl.errors import InputError, quoted
from u2pl.formats import brush_runs, runs
from u2pl.formats.areas import Mask, Shape, box, ellipse, polygon
from u2pl.formats.label_studio_images import INTERFACE, USUAL, addresses, file_of, image_of
from u2pl.formats.reading import Coordinate, Record, Side, is_json, parsed, the_file
from u2pl.formats.structure import (
    Annotated,
    Annotations,
    Classes,
    Drawing,
    Drawn,
    Files,
    Size,
    checked_size,
    mean_confidence,
    notes_on,
    parts_of,
)

FILE = "tasks.json"
#: Where Label Studio finds the images, if its local storage is their folder.
LOCAL_FILES = "/data/local-files/?d="
_LABELS = "labels"  # ends the types of results that are areas
_WITHOUT_AREA = ("keypointlabels", "vectorlabels")


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
            values = [{"format": "rle", "rle": brush_runs.encode(runs.counts_within(part.window, item.size))}]
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
    return {FILE: b"[" + b",\n".join(records) + b"]", INTERFACE: ("\n".join(lines) + "\n").encode()}


class _Value(Record):
    points: list[tuple[Coordinate, Coordinate]] | None = None
    rle: list[int] | None = None
    x: Coordinate | None = None
    y: Coordinate | None = None
    width: Coordinate | None = None
    height: Coordinate | None = None
    radius_x: Coordinate | None = Field(default=None, alias="radiusX")
    radius_y: Coordinate | None = Field(default=None, alias="radiusY")
    rotation: Coordinate = 0
    named: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        """Names are below a key that ends in ``labels``, by the tool that drew the area."""
        if not isinstance(value, dict):
            return value
        return {**value, "named": next((value[key] for key in value if key.endswith(_LABELS)), None) or ()}


class _Result(Record):
    type: str = ""
    to_name: str = ""
    original_width: Side | None = None
    original_height: Side | None = None
    image_rotation: float = 0
    value: _Value = _Value()


class _Drawn(Record):
    result: list[_Result]
    was_cancelled: bool = False


class _Task(Record):
    row: int | str | None = None  #: of JSON-MIN: the task's number
    id: int | str | None = None
    data: dict[str, Any]
    annotations: tuple[_Drawn, ...] = ()
    predictions: tuple[_Drawn, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_json_min(cls, row: Any) -> Any:
        """A row of JSON-MIN is an annotation: next to the image, lists of areas below the names of their tools."""
        if not isinstance(row, dict) or "data" in row:
            return row
        areas = [area for areas in row.values() if isinstance(areas, list) for area in areas if isinstance(area, dict)]
        results = [
            {**area, "type": next((k for k in area if k.endswith(_LABELS)), ""), "value": area} for area in areas
        ]
        its_own = "annotation_id" in row or any(each["type"] for each in results)
        if not isinstance(row.get(USUAL), str) and not (its_own and addresses(row)):
            return row  # of another tool
        texts = {key: value for key, value in row.items() if isinstance(value, str)}
        return {"row": row.get("id"), "id": row.get("id"), "data": texts, "annotations": [{"result": results}]}

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W), if its data say it as u2pl writes it."""
        height, width = self.data.get("height"), self.data.get("width")
        return (height, width) if isinstance(height, int) and isinstance(width, int) else None


class _File(RootModel[list[_Task]]):
    pass


def read(place: Path) -> Annotations:
    """Read an export in the format JSON or JSON-MIN. Of several annotations of a task, the last one counts.

    Tasks that nobody has annotated keep their predictions; those without are left out. A note says how many they are.
    """
    path = the_file(place, is_json, "json")
    rows = parsed(_File, path, "Label Studio (JSON)").root
    tasks = list({number if task.row is None else (task.row,): task for number, task in enumerate(rows)}.values())
    images, drafts, empty = [], 0, 0
    for number, task in enumerate(tasks):
        done = [each for each in task.annotations if not each.was_cancelled]
        drawn = done or task.predictions
        if drawn:
            where = f"{path}, task {number + 1 if task.id is None else task.id}"
            images.append(_image(task, drawn[-1].result, path, where))
            drafts += not done
        else:
            empty += 1
    notes = [f"{drafts} of {len(tasks)} images have no annotation yet; their drafts are taken"] if drafts else []
    notes += [f"{empty} of {len(tasks)} images have neither annotation nor draft; they are left out"] if empty else []
    return Annotations(images, notes=(*notes, *notes_on(images)))


def _image(task: _Task, results: Sequence[_Result], path: Path, where: str) -> Drawn:
    areas = [each for each in results if each.type.endswith(_LABELS)]
    drawn_on = {each.to_name for each in areas if each.to_name}
    file = file_of(image_of(task.data, drawn_on, path.parent, where))
    where = f"{path}, {file}"
    sizes = {(each.original_height, each.original_width) for each in areas}
    if task.size is not None:
        sizes.add(task.size)
    if len(sizes) > 1 or any(None in size for size in sizes):
        raise InputError(f"{where}: its original_width and original_height are missing or differ; export it again")
    size = None
    for height, width in sizes:
        size = checked_size(height or 0, width or 0, where)
    return Drawn.of(file, size, [_shape(each, size, where) for each in areas if size is not None])


def _shape(each: _Result, size: Size, where: str) -> Shape | None:
    value = each.value
    if each.image_rotation:
        raise InputError(f"{where}: it was rotated in Label Studio; rotate it back there, and export it again")
    if each.type in _WITHOUT_AREA:
        return None
    if len(value.named) != 1:
        raise InputError(f"{where}: an area has {len(value.named)} labels ({quoted(value.named)}); give each one label")
    label, (down, across) = value.named[0], (side / 100 for side in size)
    if value.points is not None:
        return polygon(label, [[each for x, y in value.points for each in (x * across, y * down)]], where=where)
    if value.rle is not None:
        return _brush(label, value.rle, size, where)
    if value.x is None or value.y is None:
        raise InputError(f"{where}: results of the type {quoted(each.type)} cannot be read; draw polygons or brushes")
    x, y = value.x * across, value.y * down
    if value.radius_x is not None and value.radius_y is not None:
        radii = (value.radius_x * across, value.radius_y * down)
        return ellipse(label, (x, y), radii, where=where, turned=value.rotation)
    if value.width is None or value.height is None:
        return None  # a point
    corners = (x, y, x + value.width * across, y + value.height * down)
    return box(label, corners, where=where, turned=value.rotation, about=(x, y))


def _brush(label: str, rle: Sequence[int], size: Size, where: str) -> Shape:
    def paint(mask: Mask, number: int) -> None:
        mask[brush_runs.decode(rle, size, where=where)] = number

    return Shape(label, paint)

"""CVAT for images 1.1: one xml for all images. Its other layout, `Segmentation mask 1.1`, is in :mod:`.voc`.

https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/ and format-smask/. Run lengths of a mask go along the
rows of its box.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from u2pl.errors import InputError, quoted
from u2pl.formats import runs, voc
from u2pl.formats.areas import Mask, Shape, box, ellipse, polygon
from u2pl.formats.reading import the_file, xml_of
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

FILE = "annotations.xml"
_END = b"</annotations>"
_WITHOUT_AREA = ("points", "polyline", "skeleton")


def write(item: Annotated, classes: Classes, how: Drawing) -> tuple[Files, Any]:
    """No file, and the xml of the image, which has no number yet; with ``masks``, its masks in the layout of VOC."""
    if how.shapes == "masks":
        return voc.write_masks(item, classes, how)
    height, width = item.size
    image = Element("image", name=item.file, width=str(width), height=str(height))
    for part in parts_of(item, how):
        label = classes.names[part.label]
        if how.shapes == "rle":
            _mask(image, part, label)
            continue
        for ring in part.polygons(how.tolerance):
            points = ";".join(f"{x:.3f},{y:.3f}" for x, y in ring)
            SubElement(image, "polygon", label=label, source="auto", occluded="0", points=points, z_order="0")
    return {}, tostring(image, encoding="utf-8")


def _mask(image: Element, part: Part, label: str) -> None:
    window = part.window
    counts = ", ".join(map(str, runs.counts_of(window.pixels.ravel()).tolist()))
    height, width = window.pixels.shape
    box = {"left": window.left, "top": window.top, "width": width, "height": height}
    place: Any = {key: str(value) for key, value in box.items()}
    SubElement(image, "mask", label=label, source="auto", occluded="0", rle=counts, **place, z_order="0")


def finish(records: Sequence[Any], classes: Classes, how: Drawing) -> Files:
    """The xml of all images, or the lists and the legend of ``masks``."""
    if how.shapes == "masks":
        return voc.lists(records, classes, subset="default")
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
    for name, colour in zip(classes.names, classes.hex, strict=True):
        label = SubElement(labels, "label")
        SubElement(label, "name").text = name
        SubElement(label, "color").text = colour
        SubElement(label, "attributes")
    head = tostring(root, encoding="utf-8", xml_declaration=True).removesuffix(_END)
    images = [b'<image id="%d"' % number + image.removeprefix(b"<image") for number, image in enumerate(records)]
    return {FILE: b"\n".join([head, *images, _END])}


def read(place: Path) -> Annotations:
    """Read an xml, the only one below a folder, or a folder in the layout `Segmentation mask 1.1`."""
    if place.is_dir() and any(place.rglob("SegmentationClass")):
        return voc.read_masks(place)
    path = the_file(place, lambda path: path.suffix.lower() == ".xml", "xml")
    root = xml_of(path, "CVAT for images 1.1")
    if root.tag != "annotations":
        raise InputError(
            f"{path}: is no file of CVAT for images: it begins with {quoted(root.tag)}, not annotations; export it as "
            "CVAT for images 1.1"
        )
    if root.find("track") is not None or root.find("image") is None:
        raise InputError(f"{path}: lists no image; export the task as CVAT for images 1.1, not for video")
    names = tuple(label.findtext("name", "").strip() for label in root.iterfind("meta//labels/label"))
    images = [_image(each, path) for each in root.iterfind("image")]
    return Annotations(images, names, notes=notes_on(images))


def _image(image: Any, path: Path) -> Drawn:
    name = _text(image, "name", str(path))
    where = f"{path}, {name}"
    size = checked_size(_whole(image, "height", where), _whole(image, "width", where), where)
    drawn = [each for each in image if each.tag != "tag"]
    drawn.sort(key=lambda each: _whole(each, "z_order", where, default="0"))
    return Drawn.of(name, size, [_shape(each, size, where) for each in drawn])


def _shape(each: Any, size: Size, where: str) -> Shape | None:
    label = _text(each, "label", where)
    if each.tag in _WITHOUT_AREA:
        return None
    if each.tag == "polygon":
        return polygon(label, [_points(each, where)], where=where)
    if each.tag == "mask":
        return _runs(each, label, size, where)
    turned = _real(each, "rotation", where, default="0")
    if each.tag == "box":
        left, top, right, bottom = (_real(each, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
        return box(label, (left, top, right, bottom), where=where, turned=turned)
    if each.tag == "ellipse":
        x, y, wide, high = (_real(each, key, where) for key in ("cx", "cy", "rx", "ry"))
        return ellipse(label, (x, y), (wide, high), where=where, turned=turned)
    raise InputError(f"{where}: a {each.tag} of {label} cannot be read; draw it as polygon or mask")


def _runs(each: Any, label: str, size: Size, where: str) -> Shape:
    left, top, width, height = (_whole(each, key, where) for key in ("left", "top", "width", "height"))
    checked_size(height, width, where)
    if top < 0 or left < 0 or top + height > size[0] or left + width > size[1]:
        raise InputError(
            f"{where}: a mask of {label} reaches beyond the image, which is {size[1]}x{size[0]} (width x height); "
            "these are annotations of another image or size"
        )
    counts = runs.from_list(_text(each, "rle", where).split(","), where=where)

    def paint(mask: Mask, value: int) -> None:
        pixels = runs.pixels_of(counts, height * width, where=where).reshape(height, width)
        Window(top, left, pixels).paint(mask, value)

    return Shape(label, paint)


def _points(each: Any, where: str) -> list[float]:
    text = _text(each, "points", where)
    return [_number(value, "points", where) for point in text.split(";") for value in point.split(",")]


def _text(element: Any, key: str, where: str, *, default: str | None = None) -> str:
    value = element.get(key, default)
    if not value:
        raise InputError(f"{where}: the attribute {key} of {element.tag} is missing; export it as CVAT for images 1.1")
    return str(value)


def _whole(element: Any, key: str, where: str, *, default: str | None = None) -> int:
    value = _real(element, key, where, default=default)
    if value != int(value):
        raise InputError(f"{where}: {key} is {value}, not a whole number; export it again")
    return int(value)


def _real(element: Any, key: str, where: str, *, default: str | None = None) -> float:
    return _number(_text(element, key, where, default=default), key, where)


def _number(text: str, key: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) <= 1e6:
        raise InputError(f"{where}: {key} holds {quoted(text)}, which is no coordinate; export it again")
    return value

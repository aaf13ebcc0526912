"""Pascal VOC: masks in colours, with a labelmap and lists of names. CVAT's `Segmentation mask 1.1` is alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from u2pl.data.classes import Palette
from u2pl.data.mask_files import MASK_SUFFIXES
from u2pl.data.mask_values import IGNORED, labelmap_pairs, numbered
from u2pl.errors import InputError
from u2pl.formats.mask_pictures import MaskFile, colour_png, index_png
from u2pl.formats.reading import some_files, the_file
from u2pl.formats.structure import Annotated, Annotations, Classes, Drawing, Files, distinct, parts_of
from u2pl.paths import read_bytes

_BORDER = (224, 224, 192)  # VOC's colour of ignored pixels
_BACKGROUND = "background"  # CVAT's name of pixels without annotation
_LABELMAP = "labelmap.txt"


def write(item: Annotated, classes: Classes, how: Drawing) -> tuple[Files, str]:
    """The mask and a copy of the image, and the name for the lists.

    VOC has no folders below its own, so only the last part of the path is kept.
    """
    name = PurePosixPath(item.stem).name
    files = {f"SegmentationClass/{name}.png": index_png(item.mask, _colours(classes), ignored=_BORDER)}
    if item.image is not None:
        copied = read_bytes(item.image, give="restore it, or leave it out", largest=2**31)
        files[f"JPEGImages/{PurePosixPath(item.file).name}"] = copied
    return files, name


def finish(records: Sequence[str], classes: Classes, how: Drawing) -> Files:
    """Lists of names and the legend."""
    if len(set(records)) < len(records):
        twice = next(name for name in records if records.count(name) > 1)
        raise InputError(f"two images in different folders are called {twice}, and voc has no folders; rename one")
    return lists(records, classes, subset="train")


def write_masks(item: Annotated, classes: Classes, how: Drawing) -> tuple[Files, str]:
    """The masks of classes and of objects in the layout of CVAT, and the name for the lists."""
    objects = item.mask.copy()
    objects[:] = 0
    for number, part in enumerate(parts_of(item, how)):
        part.window.paint(objects, number % 254 + 1)
    legend = _legend(classes)
    return {
        f"SegmentationClass/{item.stem}.png": colour_png(
            item.mask, [legend[n] for n in classes.names], legend[IGNORED]
        ),
        f"SegmentationObject/{item.stem}.png": index_png(objects, (), ignored=_BORDER),
    }, item.stem


def lists(names: Sequence[str], classes: Classes, *, subset: str) -> Files:
    """``ImageSets/Segmentation`` and the labelmap."""
    if subset == "train":
        legend = dict(zip([*classes.names, IGNORED], [*_colours(classes), _BORDER], strict=True))
    else:
        legend = _legend(classes)
        if _BACKGROUND not in classes.names:
            legend = {_BACKGROUND: legend.pop(IGNORED), **legend}
    lines = ["# label:color_rgb:parts:actions", *(f"{n}:{r},{g},{b}::" for n, (r, g, b) in legend.items())]
    return {
        f"ImageSets/Segmentation/{subset}.txt": "".join(f"{name}\n" for name in names).encode(),
        _LABELMAP: ("\n".join(lines) + "\n").encode(),
    }


def _colours(classes: Classes) -> Palette:
    return distinct(classes.palette, others=(_BORDER,))


def _legend(classes: Classes) -> dict[str, tuple[int, int, int]]:
    """CVAT's colours. Black is the class `background`, or else where there is no annotation."""
    colours = distinct(classes.palette, others=((0, 0, 0), _BORDER))
    legend = dict(zip(classes.names, colours, strict=True))
    if _BACKGROUND not in legend:
        return {**legend, IGNORED: (0, 0, 0)}
    return {**legend, _BACKGROUND: (0, 0, 0), IGNORED: _BORDER}


def read(place: Path) -> Annotations:
    """Read the masks in ``SegmentationClass``, by the colours in labelmap.txt. Raises InputError without one."""
    return _read(place)


def read_masks(place: Path) -> Annotations:
    """As :func:`read`, for CVAT's layout: `background` is no annotation, unless the labelmap names ignored pixels."""
    return _read(place, unannotated=_BACKGROUND)


def _read(place: Path, *, unannotated: str | None = None) -> Annotations:
    legend = the_file(place, lambda path: path.name == _LABELMAP, _LABELMAP)
    folder = legend.parent / "SegmentationClass"
    pairs, border = labelmap_pairs(legend), "#" + bytes(_BORDER).hex()
    if any(name == IGNORED for _, name in pairs):
        unannotated = None
    # Without a number for them, 255 classes are possible.
    kept = [(colour, IGNORED if name == unannotated else name) for colour, name in pairs]
    values = numbered(kept if border in dict(kept) else [*kept, (border, IGNORED)], str(legend), fewest=1)
    bare = tuple(int(colour[1:], 16) for colour, name in pairs if name == unannotated)
    masks = some_files(folder, lambda path: path.suffix.lower() in MASK_SUFFIXES, "masks")
    found = [MaskFile(path.relative_to(folder).as_posix(), path, values.classes, values, bare) for path in masks]
    return Annotations(found, values.classes, dict(zip(values.classes, values.palette(), strict=False)))

"""What all formats share: an image with its mask on the way out, and what a tool's file says on the way in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, product
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from u2pl.data.classes import Palette
from u2pl.data.readers.pascal_voc import voc_palette
from u2pl.errors import InputError
from u2pl.formats.areas import Mask, Shape
from u2pl.formats.shapes import EXACT, Region, Window, regions
from u2pl.structures import IGNORE_INDEX

Size = tuple[int, int]  #: (H, W)
#: Paths below the output folder, with what is written there.
Files = dict[str, bytes]

#: The class of pixels that a draft is not sure of. Imported, they are ignored.
UNSURE = "?"
SHAPES = ("polygons", "rle", "masks")
_LARGEST = 2**29  # pixels of an image


@dataclass(frozen=True)
class Annotated:
    """An image with a mask, from a network or a person.

    Args:
        file: of the image, relative to the folder of all images, with ``/`` and its ending.
        mask: (H, W) class indices; 255 pixels have no annotation. Upright, as viewers show the image.
        confidence: (H, W) float, the probability of each pixel's class; None: unknown.
        image: where the file is; needed by formats that copy images.
    """

    file: str
    mask: Mask
    confidence: npt.NDArray[np.floating[Any]] | None = None
    image: Path | None = None

    @property
    def size(self) -> Size:
        """(H, W)."""
        height, width = self.mask.shape
        return height, width

    @property
    def stem(self) -> str:
        """The file without its ending."""
        return str(PurePosixPath(self.file).with_suffix(""))


@dataclass(frozen=True)
class Classes:
    """Names of the classes and their colours, all different."""

    names: tuple[str, ...]
    palette: Palette

    @property
    def hex(self) -> list[str]:
        """Colours as ``#rrggbb``."""
        return ["#" + "".join(f"{part:02x}" for part in colour) for colour in self.palette]


def distinct(palette: Palette, others: Palette = ()) -> Palette:
    """The colours, where those that come again or are among the ``others`` are replaced by colours of VOC."""
    taken, found = set(others), []
    spare = chain(voc_palette(), product(range(256), range(256), range(256)))
    for colour in palette:
        chosen = colour if colour not in taken else next(c for c in spare if c not in taken and c not in palette)
        taken.add(chosen)
        found.append(chosen)
    return tuple(found)


@dataclass(frozen=True)
class Drawing:
    """How masks become shapes.

    Args:
        shapes: ``polygons``; ``rle``: pixel for pixel, as the tool stores brushes; ``masks``: pictures, in CVAT.
        per_class: one object for each class of an image. False: one for each connected part.
        tolerance: pixels by which the border of a polygon may move, for fewer points. Below 0.35 no pixel changes.
        undrawn: index of a class that gets no shape; None: all get one.
    """

    shapes: str = "polygons"
    per_class: bool = False
    tolerance: float = EXACT
    undrawn: int | None = None


@dataclass(frozen=True)
class Part:
    """One object: all of one class in an image, or a connected part of it."""

    label: int
    regions: tuple[Region, ...]
    confidence: float | None  #: the mean over its pixels

    def polygons(self, tolerance: float) -> list[npt.NDArray[np.float64]]:
        """(N, 2) points x, y for each region, with holes joined to the border by a seam."""
        return [region.one_ring(tolerance) for region in self.regions]

    @cached_property
    def window(self) -> Window:
        """The pixels, in the smallest box around them."""
        top, left = min(r.window.top for r in self.regions), min(r.window.left for r in self.regions)
        bottom, right = max(r.window.bottom for r in self.regions), max(r.window.right for r in self.regions)
        pixels = np.zeros((bottom - top, right - left), dtype=bool)
        for region in self.regions:
            each = region.window
            pixels[each.top - top : each.bottom - top, each.left - left : each.right - left] |= each.pixels
        return Window(top, left, pixels)


def parts_of(item: Annotated, how: Drawing) -> list[Part]:
    """The objects of an image, by class, without ignored pixels and the class that is not drawn."""
    found = []
    for label in np.flatnonzero(np.bincount(item.mask.ravel(), minlength=256)).tolist():
        if label in (IGNORE_INDEX, how.undrawn):
            continue
        of_class = regions(item.mask == label)
        groups = [tuple(of_class)] if how.per_class else [(region,) for region in of_class]
        found += [Part(label, group, _mean(item, group)) for group in groups]
    return found


def _mean(item: Annotated, group: Sequence[Region]) -> float | None:
    if item.confidence is None:
        return None
    values = [region.window.of(item.confidence)[region.window.pixels] for region in group]
    return round(float(np.concatenate(values).mean(dtype=np.float64)), 4)


def mean_confidence(item: Annotated) -> float | None:
    """Over all annotated pixels of an image; None if it is unknown, or nothing is annotated."""
    if item.confidence is None:
        return None
    values = item.confidence[item.mask != IGNORE_INDEX]
    return round(float(values.mean(dtype=np.float64)), 4) if values.size else None


class Found(Protocol):
    """An image that annotations name."""

    @property
    def file(self) -> str:
        """Its name or path, as the tool writes it."""

    @property
    def size(self) -> Size | None:
        """(H, W); None: the annotations do not say."""

    def labels(self) -> set[str]:
        """Names that its mask may hold."""

    def draw(self, size: Size, numbers: Mapping[str, int], fill: int) -> Mask:
        """(H, W) class indices: ``numbers`` of the names, and ``fill`` where there is no annotation.

        Raises InputError naming the file if they do not fit the size.
        """


@dataclass(frozen=True)
class Drawn:
    """An image with shapes. Later ones cover earlier ones."""

    file: str
    size: Size | None
    shapes: Sequence[Shape]
    without_area: int = 0  #: points, lines and the like, which are left out

    @classmethod
    def of(cls, file: str, size: Size | None, shapes: Iterable[Shape | None]) -> Drawn:
        """An image with shapes; None stands for one without area."""
        each = list(shapes)
        areas = [shape for shape in each if shape is not None]
        return cls(file, size, areas, len(each) - len(areas))

    def labels(self) -> set[str]:
        return {shape.label for shape in self.shapes}

    def draw(self, size: Size, numbers: Mapping[str, int], fill: int) -> Mask:
        mask = np.full(size, fill, dtype=np.uint8)
        for shape in self.shapes:
            shape.paint(mask, numbers[shape.label])
        return mask


@dataclass(frozen=True)
class Annotations:
    """All that a tool's file says. ``classes`` are in the tool's order, if it has one."""

    images: Sequence[Found]
    classes: tuple[str, ...] = ()
    palette: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def notes_on(images: Iterable[Drawn]) -> tuple[str, ...]:
    """What a person should know of shapes that are left out."""
    count = sum(image.without_area for image in images)
    return (f"{count} points, lines or other shapes without area are left out",) if count else ()


def checked_size(height: int, width: int, where: str) -> Size:
    """(H, W), if an image can have it. Raises InputError that begins with ``where``."""
    if height < 1 or width < 1 or height * width > _LARGEST:
        raise InputError(f"{where}: an image of {width}x{height} (width x height) is not possible; correct its size")
    return height, width

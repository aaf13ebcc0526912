"""Masks -> the format of an annotation tool, whoever drew them. Each image is written as soon as it is there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from u2pl.data.classes import Palette
from u2pl.data.mask_values import IGNORED
from u2pl.data.readers.pascal_voc import voc_palette
from u2pl.engine.checkpoint import unwritable, write_atomically
from u2pl.errors import InputError, quoted
from u2pl.formats import FORMATS, UNSURE, Annotated, Classes, Drawing
from u2pl.formats.shapes import require_polygons
from u2pl.formats.structure import distinct
from u2pl.printable import printable
from u2pl.structures import IGNORE_INDEX

UNSURE_CHOICES = ("ignore", "class")
_CLASSES = "classes.txt"
_LABELMAPS = ("voc", "cvat")  # lines of name:r,g,b


@dataclass(frozen=True)
class DraftOptions:
    """How masks are written.

    Args:
        format: one of :data:`u2pl.formats.FORMATS`.
        shapes: ``polygons``, ``rle`` or ``masks``, as the format allows; None: its usual one.
        per_class: one object for each class of an image, instead of one for each connected part.
        tolerance: pixels by which the border of a polygon may move, for fewer points.
        unsure: ignored pixels are left out (``ignore``), or are a ``class`` called ``?``.
        background: a class that gets no shapes; None: every class gets them.

    Raises InputError for other values.
    """

    format: str
    shapes: str | None = None
    per_class: bool = False
    tolerance: float = 0.35
    unsure: str = "ignore"
    background: str | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"--format {quoted(self.format)}: should be {', '.join(FORMATS)}")
        shapes = FORMATS[self.format].shapes
        if self.shapes is not None and self.shapes not in shapes:
            raise InputError(f"--shapes {quoted(self.shapes)}: with --format {self.format} it is {' or '.join(shapes)}")
        if self.unsure not in UNSURE_CHOICES:
            raise InputError(f"--unsure {quoted(self.unsure)}: should be {' or '.join(UNSURE_CHOICES)}")
        if not 0 < self.tolerance <= 100:
            raise InputError(f"--tolerance {self.tolerance}: should be above 0 and at most 100 pixels")
        if self.background is not None and self.draws_masks:
            raise InputError(f"--background: --format {self.format} has masks, not shapes; leave it out")

    @property
    def draws_masks(self) -> bool:
        """Whether masks are pictures."""
        return (self.shapes or FORMATS[self.format].shapes[0]) == "masks"


class Export:
    """Writes masks one by one, then what lists them all.

    Args:
        out: an empty or missing folder, unless ``overwrite``.
        names, palette: of the classes.

    Raises InputError, before anything is written, if the folder or the classes cannot be used.
    """

    def __init__(
        self, out: Path, names: Sequence[str], palette: Palette, options: DraftOptions, *, overwrite: bool = False
    ) -> None:
        _refuse_filled(out, overwrite=overwrite)
        self.out, self.options, self.format = out, options, FORMATS[options.format]
        self.count = len(names)
        self.unsure = len(names) if options.unsure == "class" else None
        known = [*names, *([] if self.unsure is None else [UNSURE])]
        for name in known:
            if name == IGNORED or (name == UNSURE and UNSURE in names):
                raise InputError(f"the class {quoted(name)} cannot be exported, for this name means ignored pixels")
            if options.draws_masks and options.format in _LABELMAPS and (":" in name or name.startswith("#")):
                raise InputError(f"the class {quoted(name)} holds : or #, which a labelmap.txt has no place for")
        if len(known) > IGNORE_INDEX:
            raise InputError(f"--unsure class: there are {len(names)} classes already; leave it out")
        if options.background is not None and options.background not in names:
            raise InputError(f"--background {quoted(options.background)}: the classes are {', '.join(names)}")
        colours = (*(palette or voc_palette(len(names))), (128, 128, 128))[: len(known)]
        self.classes = Classes(tuple(known), distinct(colours))
        undrawn = None if options.background is None else names.index(options.background)
        shapes = options.shapes or self.format.shapes[0]
        if shapes == "polygons":
            require_polygons()
        self.how = Drawing(shapes, options.per_class, options.tolerance, undrawn)
        self.records: dict[str, Any] = {}

    def add(self, item: Annotated) -> None:
        """Write what belongs to one image. Threads may call it at the same time.

        Raises InputError if a file cannot be written, and for names that files of text cannot hold.
        """
        if printable(item.file) != item.file:
            raise InputError(f"{item.file!a}: its name cannot be written into the files of tools; rename the image")
        values = np.flatnonzero(np.bincount(item.mask.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX])
        if values.size and values[-1] >= self.count:
            raise InputError(f"the mask of {item.file} holds {values[-1]}, but there are {self.count} classes")
        if self.unsure is not None:
            item = replace(item, mask=np.where(item.mask == IGNORE_INDEX, self.unsure, item.mask).astype(np.uint8))
        elif self.how.undrawn is not None and (item.mask == IGNORE_INDEX).any():
            raise InputError(
                f"{item.file} has ignored pixels, which would become --background; add --unsure class, or leave "
                "--background out"
            )
        files, record = self.format.write(item, self.classes, self.how)
        self._write(files)
        self.records[item.file] = record

    def finish(self, order: Sequence[str] = ()) -> None:
        """Write what lists all images: those in ``order`` first, by their files, others as they came."""
        names = dict.fromkeys([*(name for name in order if name in self.records), *self.records])
        records = [self.records[name] for name in names]
        self._write(self.format.finish(records, self.classes, self.how))
        self._write({_CLASSES: "".join(f"{name}\n" for name in self.classes.names).encode()})

    def _write(self, files: dict[str, bytes]) -> None:
        for name, data in files.items():
            path = self.out / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise unwritable(path, error) from error
            write_atomically(path, lambda partial, data=data: partial.write_bytes(data))  # type: ignore[misc]


def export(
    items: Iterable[Annotated],
    out: Path,
    *,
    names: Sequence[str],
    palette: Palette = (),
    options: DraftOptions,
    overwrite: bool = False,
) -> int:
    """Write masks, of a network or a person, in the format of an annotation tool and in their order. Returns how many.

    Raises InputError, before anything is written, if the folder ``out`` holds files or the classes cannot be used.
    """
    writer = Export(out, names, palette, options, overwrite=overwrite)
    for item in items:
        writer.add(item)
    writer.finish()
    return len(writer.records)


def _refuse_filled(out: Path, *, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    if not overwrite and any(out.iterdir()):
        raise InputError(f"--out {out}: it holds files; choose another folder, or add --overwrite")

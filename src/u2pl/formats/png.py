"""Masks of class indices, as u2pl trains on them, with the names of the classes in classes.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from u2pl.data.classes import read_classes
from u2pl.data.mask_files import MASK_SUFFIXES
from u2pl.errors import InputError
from u2pl.formats.mask_pictures import MaskFile, index_png
from u2pl.formats.reading import some_files
from u2pl.formats.structure import Annotated, Annotations, Classes, Drawing, Files


def write(item: Annotated, classes: Classes, how: Drawing) -> tuple[Files, str]:
    """The mask at the path of its image."""
    return {f"masks/{item.stem}.png": index_png(item.mask, classes.palette)}, item.stem


def finish(records: Sequence[str], classes: Classes, how: Drawing) -> Files:
    """Nothing more: every export has a classes.txt."""
    return {}


def read(place: Path) -> Annotations:
    """Read all masks below a folder, or below its ``masks``. Raises InputError without a classes.txt."""
    legend = place / "classes.txt" if place.is_dir() else place.parent / "classes.txt"
    if not legend.is_file():
        raise InputError(f"{legend} is missing; write the names of the classes there, one a line, from index 0 on")
    names = read_classes(legend)
    return Annotations([MaskFile(file, path, names) for file, path in masks_at(place)], names)


def masks_at(place: Path) -> list[tuple[str, Path]]:
    """Masks with their paths below the folder that holds them."""
    if place.is_file():
        return [(place.name, place)]
    folder = place / "masks" if (place / "masks").is_dir() else place
    found = some_files(folder, lambda path: path.suffix.lower() in MASK_SUFFIXES, "masks")
    return [(path.relative_to(folder).as_posix(), path) for path in found]

"""Masks of class indices, as u2pl trains on them, with the names of the classes in classes.txt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from u2pl.data.classes import read_classes
from u2pl.data.mask_files import MASK_SUFFIXES
from u2pl.data.walking import files_below
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
    """Read all masks beside a classes.txt, or in the folder ``masks`` beside it. Raises InputError without one."""
    legend = legend_at(place, "classes.txt", "the names of the classes, one a line, from index 0 on")
    names = read_classes(legend)
    return Annotations([MaskFile(file, path, names) for file, path in masks_at(place, legend)], names)


def legend_at(place: Path, name: str, content: str) -> Path:
    """The only file of this name below a folder, or beside a file. Raises InputError if there is none, or several."""
    folder = place if place.is_dir() else place.parent
    found, _ = files_below(folder, lambda path: path.name == name) if place.is_dir() else ([folder / name], [])
    if not found or not found[0].is_file():
        raise InputError(f"{folder / name} is missing; write {content}, into it")
    if len(found) > 1:
        raise InputError(f"{place} holds several {name} ({found[0]}, {found[1]}); give the folder of one of them")
    return found[0]


def masks_at(place: Path, legend: Path) -> list[tuple[str, Path]]:
    """Masks with their paths below the folder that holds them."""
    if place.is_file():
        return [(place.name, place)]
    folder = legend.parent / "masks"
    folder = folder if folder.is_dir() else legend.parent
    found = some_files(folder, lambda path: path.suffix.lower() in MASK_SUFFIXES, "masks")
    return [(path.relative_to(folder).as_posix(), path) for path in found]

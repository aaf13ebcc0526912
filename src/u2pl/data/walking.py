"""The files below a folder: links are followed, and folders of file managers and notebooks are left out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from u2pl.errors import InputError

#: Folders that programs leave behind, with copies and thumbnails of images. So are all whose name begins with a dot.
SERVICE_FOLDERS = frozenset({"@eaDir", "__MACOSX", "$RECYCLE.BIN"})


def files_below(folder: Path, wanted: Callable[[Path], bool]) -> tuple[list[Path], list[Path]]:
    """The ``wanted`` files below a folder, sorted, and the folders that are left out.

    Linked folders are followed. A link back to a folder on the way to it is not: the walk would never end. Raises
    InputError for a folder that cannot be read.
    """
    found: list[Path] = []
    skipped: list[Path] = []

    def walk(place: Path, above: tuple[str, ...]) -> None:
        real = os.path.realpath(place)
        if real in above:
            return
        try:
            names = sorted(os.listdir(place))
        except OSError as error:
            raise InputError(f"folder {place} cannot be read ({error.strerror}); allow it, or move it away") from error
        for name in names:
            path = place / name
            if path.is_dir():
                if name.startswith(".") or name in SERVICE_FOLDERS:
                    skipped.append(path)
                else:
                    walk(path, (*above, real))
            elif wanted(path):
                found.append(path)

    walk(folder, ())
    return sorted(found), skipped


def skipped_notes(skipped: list[Path], wanted: Callable[[Path], bool]) -> list[str]:
    """One line for each folder that is left out and holds what was wanted."""
    notes = []
    for folder in skipped:
        count = sum(wanted(path) for path in folder.rglob("*"))
        if count:
            notes.append(f"{folder} is left out, with {count} image{'s' if count > 1 else ''}; it is no folder of data")
    return notes

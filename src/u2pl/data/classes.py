"""Class names and colours, and the choice of which classes to keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from u2pl.data.files import INVALID
from u2pl.data.text import check_name, read_lines
from u2pl.errors import InputError, quoted
from u2pl.structures import IGNORE_INDEX

Palette = tuple[tuple[int, int, int], ...]


def read_classes(path: Path) -> tuple[str, ...]:
    """Read class names, one per line. BOM, CRLF and blank lines are allowed. Raises InputError naming the file."""
    lines = list(enumerate(read_lines(path, give="write one class name per line in UTF-8"), start=1))
    names = tuple(line for _, line in lines if line)
    if not names:
        raise InputError(f"{path} names no class; write one class name per line")
    if len(names) == 1 and any(mark in names[0] for mark in ",;\t"):
        raise InputError(f"{path} has one line, {quoted(names[0])}; write one class name per line")
    if len(names) > IGNORE_INDEX:
        raise InputError(
            f"{path} names {len(names)} classes; at most {IGNORE_INDEX} are possible ({IGNORE_INDEX} is ignored)"
        )
    for number, name in lines:
        check_name(name, f"{path}, line {number}")
        if name and names.count(name) > 1:
            raise InputError(f"{path} names the class {name!r} more than once; make the names unique")
    return names


def keep(known: Sequence[str], kept: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Keep some classes by name, in the given order; pixels of the others are ignored.

    Returns the names and a lookup table for raw mask values (None if nothing changes). Raises InputError for an
    unknown or repeated name, and for an empty list.
    """
    if kept is None or tuple(kept) == tuple(known):
        return tuple(known), None
    if not kept:
        raise InputError("classes: the list is empty; name at least one class or leave it out")
    lookup = [IGNORE_INDEX if value < len(known) else INVALID for value in range(IGNORE_INDEX)] + [IGNORE_INDEX]
    for index, name in enumerate(kept):
        if name not in known:
            raise InputError(f"classes: {quoted(name)} is not a class of this data set; known are {', '.join(known)}")
        if list(kept).count(name) > 1:
            raise InputError(f"classes: {name!r} is named more than once; name each class once")
        lookup[list(known).index(name)] = index
    return tuple(kept), tuple(lookup)

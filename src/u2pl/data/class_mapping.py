"""Map the classes of one data set to the classes of another."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from u2pl.data.files import INVALID
from u2pl.data.text import read_rows
from u2pl.errors import InputError, quoted
from u2pl.structures import IGNORE_INDEX

#: 256 entries: mask value -> class index, IGNORE_INDEX, or INVALID.
Lookup = tuple[int, ...]

COLUMNS = ("source", "target")


def by_name(source: Sequence[str], target: Sequence[str]) -> dict[str, str]:
    """Map each source class to the target class of the same name. Raises InputError if there is none."""
    only = [name for name in source if name not in target]
    if only:
        missing = [name for name in target if name not in source]
        example = f"{only[0]},{missing[0] if missing else target[0]}"
        raise InputError(
            f"data.source and data.target have different classes: {_some(only)} only in the source, "
            f"{_some(missing) if missing else 'none'} only in the target; give data.source.mapping=FILE.csv with the "
            f"header {','.join(COLUMNS)} and a line for each class of the source, such as {example} "
            f"(nothing after the comma: ignored), or keep common ones with data.source.classes"
        )
    return {name: name for name in source}


def read_mapping(path: Path, source: Sequence[str], target: Sequence[str]) -> dict[str, str]:
    """Read source class -> target class from a CSV file with the header ``source,target``.

    Source classes with an empty target or without a row are ignored and not in the result. Several source classes may
    share a target. Other columns, BOM, CRLF, blank lines, and semicolons or tabs instead of commas are allowed.
    Raises InputError naming the file and the line that cannot be used.
    """
    mapping: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, (name, meaning) in _rows(path):
        for value, known, whose in ((name, source, "source"), (meaning, target, "target")):
            if value not in known and (value or whose == "source"):
                raise InputError(
                    f"{path}, line {number}: {quoted(value)} is no class of the {whose}{_hint(value, known)}"
                )
        if name in lines and mapping.get(name, "") != meaning:
            raise InputError(f"{path}, line {number}: {name!r} has another target in line {lines[name]}; keep one")
        lines.setdefault(name, number)
        if meaning:
            mapping[name] = meaning
    if not mapping:
        raise InputError(f"{path} maps no class; write a line for each class of the source, such as car,vehicle")
    return mapping


def to_lookup(mapping: dict[str, str], source: Sequence[str], target: Sequence[str]) -> Lookup:
    """The mapping as a lookup table for mask values; classes that it does not name are ignored."""
    known = [list(target).index(mapping[name]) if name in mapping else IGNORE_INDEX for name in source]
    return (*known, *[INVALID] * (IGNORE_INDEX - len(known)), IGNORE_INDEX)


def compose(first: Lookup | None, second: Lookup | None) -> Lookup | None:
    """Apply ``first``, then ``second``; None changes nothing."""
    if first is None or second is None:
        return first or second
    return tuple(value if value == INVALID else second[value] for value in first)


def _rows(path: Path) -> list[tuple[int, tuple[str, str]]]:
    """Line number, source and target of each row."""
    give = "give a csv file in UTF-8 as data.source.mapping"
    rows = read_rows(path, give=give, delimiter=lambda head: max(",;\t", key=head.count))
    names = [cell.lower() for cell in rows[0][1]] if rows else []
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise InputError(f"{path} has no column {' and no column '.join(missing)}; its first line is source,target")
    places = [names.index(column) for column in COLUMNS]
    filled = ((number, [*row, *[""] * len(names)]) for number, row in rows[1:])
    return [(number, (row[places[0]], row[places[1]])) for number, row in filled]


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(known)})"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")

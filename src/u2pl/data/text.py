"""Lines and tables of text files that a user wrote: split files, names of classes, csv files."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

from u2pl.errors import InputError, quoted
from u2pl.paths import read_text

_LONGEST_LINE = 20_000  # characters; a longer line is no text of this kind
_LONGEST_NAME = 200  # characters of the name of a class
_LAST = "end"
# Control characters but tabs, marks that turn text around, half characters, and separators that are no line feeds.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def read_lines(path: Path, *, give: str) -> list[str]:
    """All lines of a UTF-8 file, stripped. A byte order mark and CRLF are allowed.

    Raises InputError, which names the file, the line and what to ``give``, for anything but text.
    """
    text = read_text(path, give=give).replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if len(line) > _LONGEST_LINE:
            raise InputError(f"{path}, line {number}: has {len(line)} characters; {give}")
        if found := _CONTROL.search(line):
            raise InputError(f"{path}, line {number}: holds the control character {found[0]!a}; {give}")
    return [line.strip() for line in lines]


def read_rows(path: Path, *, give: str, delimiter: Callable[[str], str]) -> list[tuple[int, list[str]]]:
    """Number of the line and stripped cells of each row of a csv file, without blank rows.

    ``delimiter`` chooses it by the first line that is not blank. Raises InputError like :func:`read_lines`, and for
    quotes that do not close.
    """
    lines = read_lines(path, give=give)
    head = next((line for line in lines if line), "")
    # An open quote swallows the lines below it without a word. If it does, the last line is not on its own.
    reader = csv.reader([*lines, _LAST], delimiter=delimiter(head), skipinitialspace=True)
    rows, begins = [], 1
    try:
        for row in reader:
            if reader.line_num > len(lines) and row != [_LAST]:
                raise InputError(f"{path}, line {begins}: a quote does not close; close it")
            rows.append((begins, [cell.strip() for cell in row]))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {begins}: cannot be read ({error}); {give}") from error
    return [(number, cells) for number, cells in rows[:-1] if any(cells)]


def check_name(name: str, where: object) -> str:
    """The name of a class, if it is one. Raises InputError that begins with ``where`` for a long or unprintable one."""
    if len(name) > _LONGEST_NAME:
        raise InputError(f"{where}: {quoted(name)} is too long for a class; at most {_LONGEST_NAME} are possible")
    if _CONTROL.search(name) or "\t" in name or "\n" in name:
        raise InputError(f"{where}: the class {name!a} holds control characters; write a name that can be printed")
    return name

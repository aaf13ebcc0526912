"""Which values of a mask are which class: gray values or colours -> class indices."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from u2pl.data.text import check_name, read_lines, read_rows
from u2pl.errors import InputError, quoted
from u2pl.paths import is_file
from u2pl.structures import IGNORE_INDEX

#: The name of the class of values that do not train and are not evaluated.
IGNORED = "ignore"
_EXAMPLE = "0:background,255:crack or #804080:road,#000000:ignore"
_COLOUR = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
_LABELMAP_COLOUR = re.compile(r"([0-9]{1,3})\s*,\s*([0-9]{1,3})\s*,\s*([0-9]{1,3})")
_GRAY = re.compile(r"[0-9]{1,5}")
_LARGEST = 65_535  # of a gray value, 16 bits
_LISTED = 10  # values that an error lists
_MANY = 64  # more values than this are no classes, unless classes.txt names them


class HasRawValues(Protocol):
    """A mask on disk."""

    def raw_values(self) -> frozenset[int]:
        """Values as they are stored."""


@dataclass(frozen=True)
class MaskValues:
    """A map from mask values to classes. A value is a gray value, or a colour as ``R * 65536 + G * 256 + B``."""

    classes: tuple[str, ...]  #: names, without the ignored ones
    values: tuple[int, ...]  #: ascending
    indices: tuple[int, ...]  #: the class of each value, or IGNORE_INDEX
    colours: bool  #: whether values are colours
    where: str = field(default="data.mask_values", repr=False, compare=False)  #: the file or key that lists them

    def apply(self, raw: npt.NDArray[np.int64], path: Path) -> npt.NDArray[np.uint8]:
        """(H, W) values -> (H, W) uint8 classes. Raises InputError for values that are not listed."""
        values = np.asarray(self.values)
        place = np.searchsorted(values, raw).clip(max=len(values) - 1)
        unknown = values[place] != raw
        if unknown.any():
            found, counts = np.unique(raw[unknown], return_counts=True)
            unlisted = listing(found, counts, self.colours)
            raise InputError(
                f"mask {path} holds values that {self.where} does not list: {unlisted}; list them, with the name "
                f"{IGNORED} for those that should not train"
            )
        return np.asarray(self.indices, dtype=np.uint8)[place]

    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """The colour of each class, the darkest if it has several; empty unless each has one."""
        first = dict(reversed(list(zip(self.indices, self.values, strict=True))))
        if not self.colours or not set(first) >= set(range(len(self.classes))):
            return ()
        return tuple((first[i] >> 16, first[i] >> 8 & 255, first[i] & 255) for i in range(len(self.classes)))


def mask_values(text: str, folders: Sequence[Path] = (), known: Sequence[str] | None = None) -> MaskValues:
    """Read the short form (``0:background,255:crack``), or a csv file in the working directory or one of ``folders``.

    Several values may have one class. A csv has the columns ``value,class``, or ``r,g,b`` and ``class`` (or ``name``).
    Classes are numbered as in ``known``, or in the order in which their names come. Raises InputError that names what
    is wrong.
    """
    places = [Path(os.path.expanduser(text)), *(folder / text for folder in folders)]
    path = next((place for place in places if is_file(place)), None)
    if path is None and ":" not in text:
        raise InputError(
            f"data.mask_values: there is no file {text}; give a csv file with the header value,class, or {_EXAMPLE}"
        )
    where = "data.mask_values" if path is None else str(path)
    pairs = _short(text, where) if path is None else _from_csv(path)
    return numbered(pairs, where, known)


def read_labelmap(path: Path, *, ignored: str) -> MaskValues:
    """Read the classes and colours of a ``labelmap.txt``: a line ``name:r,g,b:parts:actions`` for each class.

    Lines that begin with # are comments. ``ignored`` is a further colour that does not train. Raises InputError that
    names the file and the line.
    """
    pairs = labelmap_pairs(path)
    return numbered(pairs if ignored in dict(pairs) else [*pairs, (ignored, IGNORED)], str(path))


def labelmap_pairs(path: Path) -> list[tuple[str, str]]:
    """Each colour of a ``labelmap.txt`` with its name, as :func:`read_labelmap` reads them."""
    lines = read_lines(path, give="give a text file in UTF-8 with lines such as crack:128,0,0::")
    pairs = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, _, rest = line.partition(":")
            colour = _LABELMAP_COLOUR.fullmatch(rest.partition(":")[0].strip())
            if not name.strip() or colour is None or any(int(part) > 255 for part in colour.groups()):
                raise InputError(
                    f"{path}, line {number}: {quoted(line.strip())} is not name:r,g,b:: with numbers to 255"
                )
            pairs.append(("#" + "".join(f"{int(part):02x}" for part in colour.groups()), name.strip()))
    return pairs


def packed(colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """(H, W, 3) uint8 RGB -> (H, W) colours as one number each."""
    wide = colours.astype(np.int64)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


def refuse_binary(masks: Iterable[HasRawValues], where: object, second: str = "NAME") -> None:
    """Raise InputError if all masks together hold 0 and 255 only: with 255 ignored, one class is left.

    Stops at the first mask with another value. A mask that cannot be read is skipped here; reading it says why.
    """
    values: frozenset[int] = frozenset()
    for mask in masks:
        with suppress(InputError):
            values |= mask.raw_values()
        if values - {0, IGNORE_INDEX}:
            return
    if values == {0, IGNORE_INDEX}:
        raise InputError(
            f"{where}: masks hold 0 and 255 only, and 255 is ignored; set data.mask_values=0:background,255:{second} "
            "to read two classes"
        )


def refuse_numbers(values: frozenset[int], where: object) -> None:
    """Raise InputError if raw mask values cannot be class numbers: gaps, or the many values of blurred edges."""
    numbers = sorted(values - {IGNORE_INDEX})
    missing = (numbers[-1] + 1 - len(numbers)) if numbers else 0
    if len(numbers) > _MANY or missing > len(numbers):
        some = ", ".join(map(str, numbers[:_LISTED])) + (", ..." if len(numbers) > _LISTED else "")
        raise InputError(
            f"{where}: masks hold {len(numbers)} values with gaps or blurred edges ({some}); class numbers run from 0 "
            "up; set data.mask_values=0:NAME,38:OTHER, or write classes.txt if these are class numbers"
        )


def listing(values: Iterable[int], counts: Iterable[int], colours: bool) -> str:
    """Up to ten values with their pixels: ``38 (1200 pixels), 75 (800 pixels), ...``."""
    pairs = list(zip(values, counts, strict=True))
    text = ", ".join(f"{value_name(int(v), colours)} ({n} pixel{'s' if n != 1 else ''})" for v, n in pairs[:_LISTED])
    return text + (f", and {len(pairs) - _LISTED} more" if len(pairs) > _LISTED else "")


def value_name(value: int, colours: bool) -> str:
    """A value as it is written in data.mask_values."""
    return f"#{value:06x}" if colours else str(value)


def _short(text: str, where: str) -> list[tuple[str, str]]:
    """``0:background,255:crack`` -> values with the names of their classes."""
    pairs = []
    for item in text.split(","):
        value, colon, name = item.partition(":")
        if not colon or not name.strip():
            raise InputError(f"{where}: {quoted(item.strip())} is not VALUE:CLASS; write {_EXAMPLE}")
        pairs.append((value.strip(), name.strip()))
    return pairs


def _from_csv(path: Path) -> list[tuple[str, str]]:
    """Rows of a csv file -> values with the names of their classes."""
    give = "give a csv file in UTF-8 with the header value,class"
    (_, head), *below = read_rows(path, give=give, delimiter=lambda line: max(",;\t", key=line.count)) or [(1, [])]
    names = [cell.lower() for cell in head]
    rows = [(number, dict(zip(names, [*cells, *[""] * len(names)], strict=False))) for number, cells in below]
    if not rows:
        raise InputError(f"{path} lists no value; write a line for each value below the header value,class")
    return [(_value_of(row, path, number), _name_of(row, path, number)) for number, row in rows]


def _name_of(row: Mapping[str, str], path: Path, number: int) -> str:
    name = next((row[key] for key in ("class", "name") if row.get(key)), None)
    if name is None:
        raise InputError(f"{path}, line {number}: there is no class; give the columns value,class or r,g,b,class")
    return name


def _value_of(row: Mapping[str, str], path: Path, number: int) -> str:
    if all(row.get(key) for key in "rgb"):
        try:
            parts = [int(row[key]) for key in "rgb"]
        except ValueError:
            parts = [-1]
        if not all(0 <= part <= 255 for part in parts):
            raise InputError(f"{path}, line {number}: r, g and b should be numbers from 0 to 255")
        return "#" + "".join(f"{part:02x}" for part in parts)
    value = next((row[key] for key in ("value", "gray", "color", "colour") if row.get(key)), None)
    if value is None:
        raise InputError(f"{path}, line {number}: there is no value; give the columns value,class or r,g,b,class")
    return value


def numbered(
    pairs: Sequence[tuple[str, str]], where: str, known: Sequence[str] | None = None, *, fewest: int = 2
) -> MaskValues:
    """Values with names -> values with numbers. Raises InputError, which begins with ``where``, if they do not fit.

    Args:
        known: the classes in their order; None: in the order of the pairs.
        fewest: classes that there should be.
    """
    names = list(dict.fromkeys(name for _, name in pairs if name != IGNORED))
    for name in names:
        check_name(name, where)
    if known is not None:
        for name in (name for name in names if name not in known):
            raise InputError(f"{where}: {quoted(name)} is not in classes.txt; use one of {', '.join(known)}")
        names = list(known)
    if len(names) < fewest:
        raise InputError(f"{where}: names fewer than {('one class', 'two classes')[fewest - 1]}; write {_EXAMPLE}")
    if len(names) > IGNORE_INDEX:
        raise InputError(f"{where}: names {len(names)} classes; at most {IGNORE_INDEX} are possible")
    indices: dict[int, int] = {}
    kinds = set()
    for text, name in pairs:
        colour = _COLOUR.fullmatch(text)
        kinds.add(colour is not None)
        if colour is None and not (_GRAY.fullmatch(text) and int(text) <= _LARGEST):
            raise InputError(
                f"{where}: {quoted(text)} is no value; write a gray value such as 38, or a colour such as #804080"
            )
        value = int(text) if colour is None else int(text[1:], 16)
        index = IGNORE_INDEX if name == IGNORED else names.index(name)
        if indices.setdefault(value, index) != index:
            raise InputError(f"{where}: {text} has two classes; keep one")
    if len(kinds) > 1:
        raise InputError(f"{where}: holds gray values and colours; give one kind, as the masks are")
    ascending = tuple(sorted(indices))
    return MaskValues(tuple(names), ascending, tuple(indices[v] for v in ascending), kinds == {True}, where)

"""Run lengths of masks: plain counts, and COCO's text for them.

pycocotools leaves pixels undefined if counts are too few, so counts from outside are checked here.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from u2pl.errors import InputError
from u2pl.formats.shapes import Window

Counts = npt.NDArray[np.int64]

_DIGITS = 7  # of 5 bits, of one count in COCO's text: enough for 2**34 pixels


def counts_of(flat: npt.NDArray[np.bool_]) -> Counts:
    """Lengths of the runs of pixels in a row, of pixels outside and inside by turns, beginning with those outside."""
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    counts = np.diff(edges)
    return np.concatenate([[0], counts]) if flat.size and flat[0] else counts


def counts_within(window: Window, size: tuple[int, int]) -> Counts:
    """As :func:`counts_of` for a whole (H, W) image, row by row, of which only the window is looked at."""
    width = window.pixels.shape[1]
    padded = np.pad(window.pixels, ((0, 0), (1, 1)))
    row, column = np.divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), width + 1)
    places = (window.top + row) * size[1] + window.left + column  # where runs begin and end, by turns
    joined = 2 * np.flatnonzero(places[1:-1:2] == places[2::2])  # a run goes on in the next row
    places = np.delete(places, np.concatenate([joined + 1, joined + 2]))
    counts = np.diff(places, prepend=0, append=size[0] * size[1])
    return counts if counts[-1] else counts[:-1]


def places_of(counts: Counts, size: int, *, where: str) -> npt.NDArray[np.int64]:
    """Numbers of the pixels inside, of ``size`` pixels. Raises InputError as :func:`pixels_of`."""
    _require_fitting(counts, size, where)
    inside = counts[1::2]
    starts = np.cumsum(counts)[::2][: len(inside)]
    return np.arange(inside.sum()) + np.repeat(starts - (np.cumsum(inside) - inside), inside)


def pixels_of(counts: Counts, size: int, *, where: str) -> npt.NDArray[np.bool_]:
    """(size,) pixels of run lengths. Raises InputError, which begins with ``where``, if they are of another size."""
    _require_fitting(counts, size, where)
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


def _require_fitting(counts: Counts, size: int, where: str) -> None:
    total = sum(counts.tolist())  # Python's numbers do not overflow
    if total != size or (counts.size and counts.min() < 0):
        raise InputError(
            f"{where}: run lengths for {total} pixels do not fit {size} pixels; the file is damaged, or has a wrong "
            "image size"
        )


def to_text(counts: Counts) -> str:
    """COCO's text: differences to the last but one count, in digits of 5 bits with a mark on all but the last."""
    steps = counts.copy()
    steps[3:] -= counts[1:-2]
    digits = (steps[:, None] >> (5 * np.arange(_DIGITS))) & 31
    # A number ends with the digit whose sign bit and all that follows agree.
    rest = steps[:, None] >> (5 * np.arange(_DIGITS) + 4)
    length = ((rest != 0) & (rest != -1)).sum(axis=1) + 1
    used = np.arange(_DIGITS) < length[:, None]
    digits += 32 * (np.arange(_DIGITS) < length[:, None] - 1) + 48
    return digits[used].astype(np.uint8).tobytes().decode("ascii")


def from_list(numbers: Iterable[int | str], *, where: str) -> Counts:
    """Run lengths of a list. Raises InputError, which begins with ``where``, for anything but numbers."""
    try:
        return np.array([int(number) for number in numbers], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: its rle is no list of run lengths; the file is damaged") from error


def from_text(text: str, *, where: str) -> Counts:
    """Run lengths of COCO's text. Raises InputError, which begins with ``where``, if it is no such text."""
    code = np.frombuffer(text.encode("utf-8", "replace"), dtype=np.uint8).astype(np.int64) - 48
    last = (code & 32) == 0
    length = np.diff(np.flatnonzero(last), prepend=-1)
    if not code.size or code.min() < 0 or code.max() > 63 or not last[-1] or length.max() > _DIGITS:
        raise InputError(f"{where}: its counts are no run lengths in COCO's text; the file is damaged")
    place = np.arange(code.size) - np.repeat(np.cumsum(length) - length, length)
    starts = np.cumsum(length) - length
    steps = np.add.reduceat((code & 31) << (5 * place), starts)
    negative = (code[last] & 16) != 0
    steps[negative] -= 1 << (5 * length[negative])
    for first in (1, 2):  # each adds to the last but one; the first count stands alone
        steps[first::2] = np.cumsum(steps[first::2])
    return steps

"""The run lengths of Label Studio's brush: bits of the format rle-pack (https://github.com/thi-ng/umbrella).

A head of 53 bits: how many values follow (32), bits of a value - 1 (5), and four sizes of lengths - 1 (4 each). Then
runs: 1 bit whether one value repeats, 2 bits which size, the length - 1, and the value, or that many values. Label
Studio stores the four bytes of each pixel (RGBA), row by row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from u2pl.errors import InputError
from u2pl.formats.runs import Counts

_SIZES = (3, 4, 8, 16)  # as Label Studio writes them
_BYTES = 4  # of a pixel
_LONGEST = 1 << _SIZES[-1]


def encode(runs: Counts) -> list[int]:
    """Run lengths of pixels, row by row -> bytes, as numbers. Pixels inside have all bits set."""
    counts = runs * _BYTES
    values = np.where(np.arange(len(counts)) % 2 == 1, 255, 0)
    pieces = -(-counts // _LONGEST)  # none for an empty run
    lengths = np.full(pieces.sum(), _LONGEST)
    ends = np.cumsum(pieces)[pieces > 0] - 1
    lengths[ends] = (counts - (pieces - 1) * _LONGEST)[pieces > 0]
    head = _bits([int(counts.sum())], 32), _bits([7], 5), *(_bits([size - 1], 4) for size in _SIZES)
    body, used = _runs(lengths, np.repeat(values, pieces))
    return np.packbits(np.concatenate([*(part.ravel() for part in head), body[used]])).tolist()


def decode(rle: Sequence[int], size: tuple[int, int], *, where: str) -> npt.NDArray[np.bool_]:
    """Bytes -> (H, W) pixels that are not transparent. Raises InputError, which begins with ``where``, for others."""
    try:
        stream = _Stream(bytes(rle))
        total = stream.read(32)
        word = stream.read(5) + 1
        sizes = [stream.read(4) + 1 for _ in range(4)]
    except (ValueError, IndexError) as error:
        raise InputError(f"{where}: its brush cannot be read (it has no head); the file is damaged") from error
    if total != size[0] * size[1] * _BYTES or word > 8:
        raise InputError(
            f"{where}: a brush of {total // _BYTES} pixels does not fit an image of {size[1]}x{size[0]} (width x "
            "height); the file is damaged, or has a wrong image size"
        )
    values = np.zeros(total, dtype=np.uint8)
    done = 0
    while done < total:
        try:
            repeats = stream.read(1)
            length = stream.read(sizes[stream.read(2)]) + 1
            part = stream.read(word) if repeats else stream.words(length, word)
        except IndexError as error:
            raise InputError(f"{where}: its brush ends after {done // _BYTES} pixels; the file is damaged") from error
        if done + length > total:
            raise InputError(f"{where}: its brush has more pixels than the image; the file is damaged")
        values[done : done + length] = part
        done += length
    return values.reshape(*size, _BYTES)[..., 3] > 0


def _bits(numbers: Sequence[int] | npt.NDArray[np.int64], width: int) -> npt.NDArray[np.uint8]:
    """(N, width) bits, highest first."""
    return ((np.asarray(numbers)[:, None] >> np.arange(width - 1, -1, -1)) & 1).astype(np.uint8)


def _runs(lengths: npt.NDArray[np.int64], values: npt.NDArray[np.int64]) -> tuple[npt.NDArray, npt.NDArray]:
    """Bits of runs of one value, each in the shortest size: (N, 27), and which of them are used."""
    which = np.searchsorted(1 << np.array(_SIZES), lengths)
    bits = np.concatenate([np.ones((len(lengths), 1), np.uint8), _bits(which, 2), _bits(lengths - 1, _SIZES[-1])], 1)
    used = np.ones((len(lengths), bits.shape[1] + 8), dtype=bool)
    used[:, 3 : 3 + _SIZES[-1]] = np.arange(_SIZES[-1]) >= _SIZES[-1] - np.array(_SIZES)[which][:, None]
    return np.concatenate([bits, _bits(values, 8)], 1), used


class _Stream:
    """Reads bits. Raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def read(self, bits: int) -> int:
        start, end = self.place, self.place + bits
        if end > 8 * len(self.data):
            raise IndexError
        self.place = end
        chunk = int.from_bytes(self.data[start // 8 : -(-end // 8)], "big")
        return (chunk >> (-end % 8)) & ((1 << bits) - 1)

    def words(self, count: int, bits: int) -> npt.NDArray[np.uint8]:
        start, end = self.place, self.place + count * bits
        if end > 8 * len(self.data):
            raise IndexError
        self.place = end
        all_bits = np.unpackbits(np.frombuffer(self.data[start // 8 : -(-end // 8)], dtype=np.uint8))
        rows = all_bits[start % 8 : start % 8 + count * bits].reshape(count, bits)
        return (rows @ (1 << np.arange(bits - 1, -1, -1))).astype(np.uint8)

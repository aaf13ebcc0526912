"""PNG files of 16 bits a value, of which Pillow keeps 8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

#: Raw modes with which the decoder keeps the high byte, and the low byte, of each value.
_HIGH_AND_LOW = {"RGB;16B": ("RGB;16B", "RGB;16L"), "RGBA;16B": ("RGBA;16B", "RGBA;16L")}


def is_deep_png(file: ImageFile) -> bool:
    """Whether an opened file is a PNG of 16 bits a value and several channels, which :func:`read_deep_png` reads."""
    tile: Any = file.tile
    return file.format == "PNG" and bool(tile) and tile[0][3] in _HIGH_AND_LOW


def read_deep_png(path: Path) -> npt.NDArray[np.int64]:
    """(H, W, K) values from 0 to 65 535. Raises KeyError for a file that is no deep PNG.

    A damaged file may raise anything.
    """
    with Image.open(path, formats=("PNG",)) as file:
        raw: Any = file.tile[0][3]
    high, low = (_bytes(path, mode) for mode in _HIGH_AND_LOW[raw])
    return high.astype(np.int64) * 256 + low


def _bytes(path: Path, raw_mode: str) -> npt.NDArray[np.uint8]:
    """(H, W, K): one byte of each value; ``raw_mode`` chooses which."""
    with Image.open(path, formats=("PNG",)) as file:
        tiles: list[Any] = file.tile
        for index, tile in enumerate(tiles):  # plain tuples before Pillow 11
            tiles[index] = tile._replace(args=raw_mode) if hasattr(tile, "_replace") else (*tile[:3], raw_mode)
        return np.array(file)

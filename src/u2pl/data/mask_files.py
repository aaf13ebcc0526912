"""Mask files -> the values that are stored: gray values, palette indices, or colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from u2pl.data.image_files import opened
from u2pl.data.mask_values import listing, packed, value_name
from u2pl.data.tiff_files import is_tiff, tiff_header
from u2pl.errors import InputError

#: Endings of masks. All these formats keep each value as it is.
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".gif", ".bmp")
#: Endings of files that look like masks, but whose compression changes values.
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")

_LOSSY = ("JPEG", "MPO", "WEBP")
_SINGLE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")
_COLOURS = ("RGB", "RGBA", "LA", "PA")
# Pillow stretches 2- and 4-bit gray to 0..255; division by the step restores the class indices.
_GRAY_STEP = {"L;2": 85, "L;4": 17}


def read_mask(path: Path, *, colours: bool) -> npt.NDArray[Any]:
    """(H, W) values as stored. ``colours``: as colours, ``R * 65536 + G * 256 + B``.

    Raises InputError for a format that changes values, several pages, and colours where values are expected. A damaged
    file may raise anything.
    """
    with opened(path) as file:
        if file.format in _LOSSY or (is_tiff(path) and tiff_header(path).lossy):
            raise InputError(f"mask {path}: {lossy(str(file.format))}")
        pages = getattr(file, "n_frames", 1)
        if pages > 1:
            raise InputError(f"mask {path} holds {pages} pages; save the one to use as a file of its own")
        if colours:
            return packed(np.array(file.convert("RGB")))
        if file.mode in _COLOURS:
            return _gray(np.array(file.convert("RGB")), path)
        if file.mode not in _SINGLE_CHANNEL:
            raise InputError(f"mask {path} is {file.mode}; save it as png with class numbers or colours")
        raw_mode = file.tile[0][3] if file.tile else None
        values = np.array(file)
    step = _GRAY_STEP.get(raw_mode, 1) if isinstance(raw_mode, str) else 1
    return values // step if step > 1 else values


def mask_size(path: Path) -> tuple[int, int]:
    """(H, W) of a mask, from its header. A damaged file may raise anything."""
    with opened(path) as file:
        return file.height, file.width


def lossy(name: str) -> str:
    """Why a format is refused."""
    return f"{name} compression changes the values of a mask; save masks as png, from where they were drawn"


def resized(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """(h, w) values of any integer type -> (H, W), each pixel by the nearest one."""
    (height, width), (rows, columns) = size, values.shape
    y = ((np.arange(height) + 0.5) * rows / height).astype(np.int64)
    x = ((np.arange(width) + 0.5) * columns / width).astype(np.int64)
    return values[y[:, None], x]


def _gray(colours: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.uint8]:
    """(H, W) values of an RGB mask whose channels are equal. Raises InputError for one with colours."""
    if (colours == colours[..., :1]).all():
        return colours[..., 0]
    found, counts = np.unique(packed(colours), return_counts=True)
    raise InputError(
        f"mask {path} holds colours: {listing(found, counts, colours=True)}; set data.mask_values, such as "
        f"data.mask_values={value_name(int(found[0]), True)}:CLASS,{value_name(int(found[-1]), True)}:OTHER"
    )

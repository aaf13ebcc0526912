"""TIFF files of any depth and number of bands, as scanners, microscopes and satellites write them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from u2pl.errors import InputError

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # it would print about each damaged file

_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_REDUCED_OR_MASK = 0b101  # a page that is a smaller copy of another one, or a transparency mask
_ALPHA = (1, 2)  # extra samples that are opacity
_JPEG = (6, 7, 33007)


@dataclass(frozen=True)
class TiffHeader:
    """The first page of a TIFF, and how many pages there are."""

    height: int  #: as stored
    width: int
    bits: int  #: of a value
    bands: int  #: without opacity
    alpha: int  #: bands of opacity
    orientation: int  #: 1 to 8
    pages: int  #: without smaller copies and masks
    white_is_zero: bool
    lossy: bool  #: compressed as JPEG


def is_tiff(path: Path) -> bool:
    """Whether a file begins like a TIFF. False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _STARTS
    except OSError:
        return False


def tiff_header(path: Path) -> TiffHeader:
    """The header of a TIFF. A damaged file may raise anything."""
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        alpha = sum(int(kind) in _ALPHA for kind in page.extrasamples)
        orientation = page.tags.valueof("Orientation", 1)
        return TiffHeader(
            height=page.imagelength,
            width=page.imagewidth,
            bits=page.bitspersample,
            bands=max(1, page.samplesperpixel - alpha),
            alpha=alpha if page.samplesperpixel > alpha else 0,
            orientation=int(orientation) if 1 <= int(orientation) <= 8 else 1,
            pages=sum(not int(getattr(each, "subfiletype", 0)) & _REDUCED_OR_MASK for each in file.pages),
            white_is_zero=page.photometric == tifffile.PHOTOMETRIC.MINISWHITE,
            lossy=int(page.compression) in _JPEG,
        )


def read_tiff(path: Path, header: TiffHeader) -> npt.NDArray[Any]:
    """(H, W, K) values of the bands of the first page, as stored. Raises InputError where black and white are swapped.

    A damaged file may raise anything.
    """
    if header.white_is_zero:
        raise InputError(f"image {path} stores white as 0; save it with black as 0")
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        axes, values = page.axes, page.asarray()
    values = np.moveaxis(values, axes.index("S"), -1) if "S" in axes else values[..., None]
    if values.ndim != 3:
        raise InputError(f"image {path} has {values.ndim - 1} dimensions; save it as a plain image")
    return values[..., : header.bands]

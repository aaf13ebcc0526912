"""Image files -> upright 8-bit RGB. Nothing is cut or guessed silently: depth, bands and pages are read or refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from u2pl.data.deep_png import is_deep_png, read_deep_png
from u2pl.data.tiff_files import is_tiff, read_tiff, tiff_header
from u2pl.errors import InputError

#: The formats that are opened, whatever a file is called. Others, such as EPS, could start another program.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")
#: Photographs decoded at twice the size differ by 0.5 to 1 gray levels in the mean from those decoded whole; else by 3.
FINER = 2
_READABLE = "JPEG, PNG, TIFF, BMP, WebP or GIF"
_ORIENTATION = 0x0112  # the EXIF tag
_DEEP = ("I", "F")  # Pillow's modes of more than 8 bits begin so
_OPAQUE = {"RGBA": 3, "CMYK": 3, "LA": 1, "PA": 1}  # bands of a photograph in this mode, as it is shown


@dataclass(frozen=True)
class Stored:
    """What the header of an image file says."""

    height: int  #: as stored, before the image is turned upright
    width: int
    orientation: int = 1  #: EXIF, 1 to 8; 1: upright
    deep: bool = False  #: more than 8 bits a value
    bands: int = 3  #: without opacity
    pages: int = 1

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) as viewers show the image."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


@dataclass(frozen=True)
class ImageReader:
    """Reads image files into RGB.

    Args:
        bands: which bands of the file are red, green and blue, from 0; or one band, for gray. None: the file has one
            band, or three, and perhaps opacity.
        value_range: the values that become black and white in images of more than 8 bits. None: these are refused.
    """

    bands: tuple[int, ...] | None = None
    value_range: tuple[float, float] | None = None

    def read(self, path: Path, *, scale: float = 1.0) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, upright. Raises InputError naming the file if it cannot be read.

        Args:
            scale: factor by which the image is resized afterwards. Where it is small, a JPEG is decoded at 1/2, 1/4 or
                1/8 of its size, but at least at :data:`FINER` times the size that it gets, and is resized already.
        """
        with one_line("image", path):
            header = _header(path, pages=True)
            refuse_pages(header, path, "image")
            if header.deep or header.bands > 3 or self.bands is not None:
                return self._rgb(upright(_samples(path), header.orientation), path)
            with opened(path) as file:
                pixels = np.array(_small(file, scale) if file.format == "JPEG" else file.convert("RGB"))
            # Pillow turns a TIFF itself.
            return pixels if is_tiff(path) else upright(pixels, header.orientation)

    def _rgb(self, samples: npt.NDArray[Any], path: Path) -> npt.NDArray[np.uint8]:
        """(H, W, K) values of any depth -> (H, W, 3) uint8."""
        count = samples.shape[2]
        bands = self.bands or {1: (0,), 3: (0, 1, 2)}.get(count)
        if bands is None:
            raise InputError(
                f"image {path} has {count} bands; name those of red, green and blue, such as data.bands=[0,1,2]"
            )
        if max(bands) >= count:
            raise InputError(f"image {path} has {count} bands, counted from 0; data.bands names band {max(bands)}")
        chosen = self._scaled(samples[..., list(bands)], path)
        return np.ascontiguousarray(np.broadcast_to(chosen, (*chosen.shape[:2], 3)))

    def _scaled(self, samples: npt.NDArray[Any], path: Path) -> npt.NDArray[np.uint8]:
        if samples.dtype == np.uint8:
            return samples
        if self.value_range is None:
            low, high = float(np.nanmin(samples)), float(np.nanmax(samples))
            raise InputError(
                f"image {path} has more than 8 bits a value ({low:g} to {high:g} here); name the values of "
                f"black and white for all images, such as data.value_range=[0,{max(high, 1):g}]"
            )
        low, high = self.value_range
        scaled = (np.nan_to_num(samples.astype(np.float32), nan=low) - low) / (high - low)
        return (scaled.clip(0, 1) * 255).round().astype(np.uint8)


def stored(path: Path) -> Stored:
    """What the header of an image says. Raises InputError naming the file."""
    with one_line("image", path):
        return _header(path, pages=False)


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """What both sides of an image become."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


@contextmanager
def opened(path: Path) -> Iterator[ImageFile]:
    """An image file of a known format, opened with Pillow."""
    with Image.open(path, formats=FORMATS) as file:
        yield file


@contextmanager
def one_line(kind: str, path: Path) -> Iterator[None]:
    """Turn everything that a decoder raises into an InputError that names the ``kind`` of file and its path."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise InputError(_unreadable(kind, path, error)) from error


def upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """(H, W, ...) as stored -> as viewers show it: (H, W, ...), or (W, H, ...) from orientation 5 on."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


def refuse_pages(header: Stored, path: Path, kind: str) -> None:
    """Raise InputError for a file of several pictures: pages, or frames of an animation."""
    if header.pages > 1:
        raise InputError(f"{kind} {path} holds {header.pages} pages; save the one to use as a file of its own")


def _small(file: ImageFile, scale: float) -> Image.Image:
    """A JPEG as RGB: resized by ``scale`` if so few pixels are needed that not all are decoded, else as it is."""
    whole, size = file.size, scaled_size(file.size, scale)
    drafted = file.draft(file.mode, (FINER * size[0], FINER * size[1]))
    rgb = file.convert("RGB")
    if drafted is None or file.size == whole:
        return rgb
    # The box leaves out what the last pixels show beyond the border of the image.
    return rgb.resize(size, Image.Resampling.BILINEAR, box=drafted[1])


def _header(path: Path, *, pages: bool) -> Stored:
    """The header of a file. ``pages``: also count the pages, for which some formats are read to their end."""
    if is_tiff(path):
        tiff = tiff_header(path)
        _refuse_size(tiff.height * tiff.width)
        return Stored(tiff.height, tiff.width, tiff.orientation, tiff.bits not in (1, 2, 4, 8), tiff.bands, tiff.pages)
    with opened(path) as file:
        tile: Any = file.tile
        deep = file.mode.startswith(_DEEP) or (bool(tile) and "16" in str(tile[0][3]))
        bands = _OPAQUE.get(file.mode, len(file.getbands()))
        # A phone adds a depth map to a photograph, as a further page.
        count = getattr(file, "n_frames", 1) if pages and file.format != "MPO" else 1
        return Stored(file.height, file.width, _orientation(file), deep, bands, count)


def _orientation(file: Image.Image) -> int:
    """The EXIF orientation in the header of an opened file, 1 to 8."""
    if file.format == "PNG" and not {"exif", "Raw profile type exif"} & set(file.info):
        return 1  # Pillow would decode the whole file, to look for it at the end
    value = file.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _samples(path: Path) -> npt.NDArray[Any]:
    """(H, W, K) values as stored, without opacity."""
    if is_tiff(path):
        return read_tiff(path, tiff_header(path))
    with opened(path) as file:
        deep, mode = is_deep_png(file), file.mode
        if not deep and "16" in str(file.tile[0][3]) and not mode.startswith(_DEEP):
            raise InputError(f"image {path} has gray and opacity of 16 bits; save it without opacity")
        pixels = None if deep else np.array(file.convert("RGB") if mode.startswith("P") else file)
    values = read_deep_png(path) if pixels is None else pixels
    values = values if values.ndim == 3 else values[..., None]
    return values[..., : {2: 1, 4: 3}.get(values.shape[2], values.shape[2])] if mode != "CMYK" else values


def _refuse_size(pixels: int) -> None:
    """Pillow's limit, for files that Pillow does not open."""
    if Image.MAX_IMAGE_PIXELS is not None and pixels > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError


def _unreadable(kind: str, path: Path, error: BaseException) -> str:
    """One line on a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return f"{kind} {path} is missing; restore it or take it off the list"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"{kind} {path} is no {_READABLE} file; convert it, or remove it"
    if isinstance(error, Image.DecompressionBombError):
        return (
            f"{kind} {path} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; cut or shrink it (`u2pl "
            "predict` takes --max-pixels)"
        )
    if "imagecodecs" in str(error):
        return f"{kind} {path} is compressed in a way that needs one more package: pip install imagecodecs"
    return f"{kind} {path} cannot be read ({type(error).__name__}); replace or remove the file"

"""One image file with its mask file, read with Pillow into uint8 tensors."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from u2pl.data.mask_values import MaskValues, listing, packed, value_name
from u2pl.data.source import DataSource, HasHeader, Sample
from u2pl.errors import InputError
from u2pl.structures import IGNORE_INDEX

#: Lookup entry of a raw value that masks of this data set must not contain.
INVALID = -1

_SINGLE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")
_COLOURS = ("RGB", "RGBA", "LA", "PA")
# Pillow stretches 2- and 4-bit gray to 0..255; division by the step restores the class indices.
_GRAY_STEP = {"L;2": 85, "L;4": 17}
# Errors that Pillow's decoders raise on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class FileSample:
    """An image on disk and its mask, if it has one.

    The EXIF orientation is *not* applied: a mask is aligned with the stored pixels, and its PNG usually has no
    orientation.
    """

    name: str
    image_path: Path
    mask_path: Path | None
    num_classes: int
    #: 256 entries: raw mask value -> class index, IGNORE_INDEX, or INVALID. None: values are class indices.
    lookup: tuple[int, ...] | None = None
    #: Factor by which image (bilinear, antialiased) and mask (nearest) are resized when read.
    scale: float = 1.0
    #: Classes of the values in the mask, before the lookup; None: values are class indices.
    values: MaskValues | None = None
    #: Classes that the image is known to show; None: unknown.
    tags: frozenset[int] | None = None

    @property
    def has_mask(self) -> bool:
        return self.mask_path is not None

    def image(self) -> Tensor:
        """(3, H, W) uint8 RGB. Raises InputError naming the file if it cannot be read."""
        try:
            with Image.open(self.image_path) as file:
                if file.mode.startswith(("I", "F")):
                    raise InputError(f"image {self.image_path} is {file.mode}; convert it to 8 bits per channel")
                image = file.convert("RGB")
        except _DAMAGE as error:
            raise InputError(_unreadable("image", self.image_path, error)) from error
        if self.scale != 1.0:
            image = image.resize(self._scaled(image.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def mask(self) -> Tensor:
        """(H, W) uint8 class indices; 255 is ignored.

        Raises InputError naming the file if it is missing, unreadable, not single-channel, differs in size from its
        image, or contains a value that is not a class.
        """
        values = self._classes(self._stored_mask())
        if self.scale != 1.0:
            height, width = values.shape
            resized = Image.fromarray(values).resize(self._scaled((width, height)), Image.Resampling.NEAREST)
            values = np.array(resized)
        return torch.from_numpy(values)

    def raw_values(self) -> frozenset[int]:
        """Values as they are stored in the mask. Raises the errors of :meth:`mask`."""
        return frozenset(np.unique(self._stored_mask()).tolist())

    def mask_values(self) -> frozenset[int]:
        """Class indices present in the mask, without IGNORE_INDEX. Raises the errors of :meth:`mask`."""
        counts = np.bincount(self._classes(self._stored_mask()).ravel(), minlength=256)
        return frozenset(np.flatnonzero(counts).tolist()) - {IGNORE_INDEX}

    def image_size(self) -> tuple[int, int]:
        """(H, W) of :meth:`image`, read from the file's header only. Raises InputError naming the file."""
        width, height = self._scaled(self._stored_size())
        return height, width

    def _stored_size(self) -> tuple[int, int]:
        try:
            with Image.open(self.image_path) as file:
                return file.size
        except _DAMAGE as error:
            raise InputError(_unreadable("image", self.image_path, error)) from error

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        first, second = size
        return max(1, round(first * self.scale)), max(1, round(second * self.scale))

    def _stored_mask(self) -> npt.NDArray[Any]:
        """(H, W) raw values, before the lookup."""
        if self.mask_path is None:
            raise InputError(f"image {self.image_path} has no mask; add one or use the image as unlabeled")
        try:
            values = self._decoded_mask(self.mask_path)
        except _DAMAGE as error:
            raise InputError(_unreadable("mask", self.mask_path, error)) from error
        stored = self._stored_size()
        if values.shape != stored[::-1]:
            raise InputError(
                f"mask {self.mask_path} is {values.shape[1]}x{values.shape[0]} but its image {self.image_path.name} is "
                f"{stored[0]}x{stored[1]} (width x height); give both the same size"
            )
        return values

    def _decoded_mask(self, path: Path) -> npt.NDArray[Any]:
        """(H, W) values as stored in the file."""
        with Image.open(path) as file:
            if self.values is not None and self.values.colours:
                return packed(np.array(file.convert("RGB")))
            if file.mode in _COLOURS:
                return self._gray(np.array(file.convert("RGB")), path)
            if file.mode not in _SINGLE_CHANNEL:
                raise InputError(f"mask {path} is {file.mode}; save it as png with class numbers or colours")
            raw_mode = file.tile[0][3] if file.tile else None
            values = np.array(file)
        step = _GRAY_STEP.get(raw_mode, 1) if isinstance(raw_mode, str) else 1
        return values // step if step > 1 else values

    def _gray(self, colours: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.uint8]:
        """(H, W) values of an RGB mask whose channels are equal. Raises InputError for one with colours."""
        if (colours == colours[..., :1]).all():
            return colours[..., 0]
        found, counts = np.unique(packed(colours), return_counts=True)
        raise InputError(
            f"mask {path} holds colours: {listing(found, counts, colours=True)}; set data.mask_values, such as "
            f"data.mask_values={value_name(int(found[0]), True)}:CLASS,{value_name(int(found[-1]), True)}:OTHER"
        )

    def _classes(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Raw values (H, W) -> class indices (H, W) uint8."""
        if self.values is not None:
            raw = self.values.apply(raw.astype(np.int64), self.mask_path or self.image_path)
        if raw.dtype.itemsize > 1 and (raw.min() < 0 or raw.max() > 255):
            self._refuse(int(raw.min() if raw.min() < 0 else raw.max()))
        values = raw.astype(np.uint8, copy=False)
        present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
        if self.lookup is None:
            bad = present[(present >= self.num_classes) & (present != IGNORE_INDEX)]
        else:
            bad = present[np.asarray(self.lookup)[present] == INVALID]
        if bad.size:
            self._refuse(int(bad[0]))
        return values if self.lookup is None else (np.asarray(self.lookup) & 255).astype(np.uint8)[values]

    def _refuse(self, value: int) -> None:
        known = self.num_classes if self.lookup is None else sum(entry != INVALID for entry in self.lookup[:255])
        raise InputError(
            f"mask {self.mask_path} holds the value {value}, but there are {known} classes (0 to {known - 1}, "
            f"{IGNORE_INDEX} = ignored); correct the mask or the list of classes"
        )


class CachedSample:
    """A sample that keeps its decoded tensors after the first read.

    Each loader process keeps its own tensors; pickling a sample drops them. All reads return the same tensors, so
    transforms must not write into them.
    """

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self._image: Tensor | None = None
        self._mask: Tensor | None = None

    @property
    def name(self) -> str:
        return self.sample.name

    @property
    def has_mask(self) -> bool:
        return self.sample.has_mask

    @property
    def tags(self) -> frozenset[int] | None:
        return self.sample.tags

    def image(self) -> Tensor:
        """(3, H, W) uint8, as the wrapped sample reads it."""
        if self._image is None:
            self._image = self.sample.image()
        return self._image

    def mask(self) -> Tensor:
        """(H, W) uint8, as the wrapped sample reads it."""
        if self._mask is None:
            self._mask = self.sample.mask()
        return self._mask

    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image, which is decoded unless the wrapped sample can give its size."""
        if self._image is None and isinstance(self.sample, HasHeader):
            return self.sample.image_size()
        height, width = self.image().shape[-2:]
        return height, width

    def __reduce__(self) -> tuple[type[CachedSample], tuple[Sample]]:
        return CachedSample, (self.sample,)


def cached(source: DataSource) -> DataSource:
    """The same data set; each process decodes an image or mask at most once."""
    labeled, unlabeled, val = (
        [CachedSample(s) for s in part] for part in (source.labeled, source.unlabeled, source.val)
    )
    return replace(source, labeled=labeled, unlabeled=unlabeled, val=val)


def _unreadable(kind: str, path: Path, error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{kind} {path} is missing; restore it or take it off the list"
    return f"{kind} {path} cannot be read ({type(error).__name__}); replace or remove the file"

"""One image file with its mask file, read with Pillow into uint8 tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from u2pl.data.image_files import ImageReader, one_line, scaled_size, stored, upright
from u2pl.data.mask_files import mask_size, read_mask, resized
from u2pl.data.mask_values import MaskValues, listing
from u2pl.data.shared_store import SharedStore
from u2pl.data.source import DataSource, HasHeader, HasNotes, Sample
from u2pl.errors import InputError
from u2pl.structures import IGNORE_INDEX

#: Lookup entry of a raw value that masks of this data set must not contain.
INVALID = -1

_SAME_SHAPE = 0.02  # relative difference of two aspect ratios that rounding explains


@dataclass(frozen=True)
class FileSample:
    """An image on disk and its mask, if it has one.

    Images are read upright, as viewers show them, and masks are drawn on upright images. A mask that only fits the
    pixels as they are stored is turned with them.
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
    #: How the image file becomes RGB.
    reader: ImageReader = ImageReader()
    #: Resize a mask of another size to the size of its image, by the nearest pixel.
    resize_mask: bool = False

    @property
    def has_mask(self) -> bool:
        return self.mask_path is not None

    def notes(self) -> tuple[str, ...]:
        """What a reader of the mask should know, one line each; headers are read. Raises the errors of :meth:`mask`."""
        if self.mask_path is None or stored(self.image_path).orientation == 1:
            return ()
        with one_line("mask", self.mask_path):
            size = mask_size(self.mask_path)
        if self._fits_stored_pixels(size):
            return (f"mask {self.mask_path} is drawn on the photograph as it is stored; it is turned upright with it",)
        return ()

    def image(self) -> Tensor:
        """(3, H, W) uint8 RGB. Raises InputError naming the file if it cannot be read."""
        pixels = self.reader.read(self.image_path, scale=self.scale)
        if self.scale != 1.0:
            height, width = self.image_size()
            pixels = np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels).permute(2, 0, 1)

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
        height, width = self._scaled(stored(self.image_path).size)
        return height, width

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        return scaled_size(size, self.scale)

    def _stored_mask(self) -> npt.NDArray[Any]:
        """(H, W) raw values, before the lookup."""
        if self.mask_path is None:
            raise InputError(f"image {self.image_path} has no mask; add one or use the image as unlabeled")
        with one_line("mask", self.mask_path):
            values = self._decoded_mask(self.mask_path)
        header = stored(self.image_path)
        height, width = values.shape
        if (height, width) == header.size:
            return values
        if self._fits_stored_pixels((height, width)):
            return upright(values, header.orientation)
        if self.resize_mask:
            return resized(values, header.size)
        rows, columns = header.size
        alike = abs(height * columns / (width * rows) - 1) < _SAME_SHAPE
        remedy = "set data.resize_masks=true to resize masks" if alike else "give both the same size"
        raise InputError(
            f"mask {self.mask_path} is {width}x{height} but its image {self.image_path.name} is {columns}x{rows} "
            f"(width x height); {remedy}"
        )

    def _fits_stored_pixels(self, size: tuple[int, int]) -> bool:
        """Whether a mask of (H, W) ``size`` fits the image before it is turned upright, but not after."""
        header = stored(self.image_path)
        return size != header.size and size == (header.height, header.width)

    def _decoded_mask(self, path: Path) -> npt.NDArray[Any]:
        """(H, W) values as stored in the file."""
        return read_mask(path, colours=self.values is not None and self.values.colours)

    def _classes(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Raw values (H, W) -> class indices (H, W) uint8."""
        if self.values is not None:
            raw = self.values.apply(raw.astype(np.int64), self.mask_path or self.image_path)
        if raw.dtype.itemsize > 1 and (raw.min() < 0 or raw.max() > 255):
            self._refuse(raw, (raw < 0) | (raw > 255))
        values = raw.astype(np.uint8, copy=False)
        present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
        if self.lookup is None:
            bad = present[(present >= self.num_classes) & (present != IGNORE_INDEX)]
        else:
            bad = present[np.asarray(self.lookup)[present] == INVALID]
        if bad.size:
            self._refuse(values, np.isin(values, bad))
        return values if self.lookup is None else (np.asarray(self.lookup) & 255).astype(np.uint8)[values]

    def _refuse(self, values: npt.NDArray[Any], bad: npt.NDArray[np.bool_]) -> None:
        """Raise InputError for the values of a mask that are no classes."""
        found, counts = np.unique(values[bad], return_counts=True)
        known = self.num_classes if self.lookup is None else sum(entry != INVALID for entry in self.lookup[:255])
        held = f"the value {found[0]}" if len(found) == 1 else f"values {listing(found, counts, colours=False)}"
        raise InputError(
            f"mask {self.mask_path} holds {held}, but there are {known} classes (0 to {known - 1}, {IGNORE_INDEX} = "
            "ignored); correct the mask or the list of classes, or say what the values mean with data.mask_values"
        )


class CachedSample:
    """A sample whose decoded pixels are kept after the first read, for all loader processes of a training.

    All reads return the same memory, so transforms must not write into it.

    Args:
        store: shared by the samples of a data set; None: one of its own.
        number: of this sample in the store.
    """

    def __init__(self, sample: Sample, store: SharedStore | None = None, number: int = 0) -> None:
        self.sample = sample
        self.store, self.number = store or SharedStore(2), number

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
        """(3, H, W) uint8, as the wrapped sample reads it; the channels of a pixel side by side in memory."""
        kept = self.store.get(2 * self.number)
        if kept is None:
            kept = self.store.put(2 * self.number, self.sample.image().permute(1, 2, 0).contiguous().numpy())
        return torch.from_numpy(kept).permute(2, 0, 1)

    def mask(self) -> Tensor:
        """(H, W) uint8, as the wrapped sample reads it."""
        kept = self.store.get(2 * self.number + 1)
        return torch.from_numpy(
            self.store.put(2 * self.number + 1, self.sample.mask().numpy()) if kept is None else kept
        )

    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image, which is decoded unless it is kept or the wrapped sample can give its size."""
        kept = self.store.get(2 * self.number)
        if kept is None and isinstance(self.sample, HasHeader):
            return self.sample.image_size()
        height, width = self.image().shape[-2:]
        return height, width

    def notes(self) -> tuple[str, ...]:
        """Notes of the wrapped sample."""
        return self.sample.notes() if isinstance(self.sample, HasNotes) else ()


def cached(source: DataSource) -> DataSource:
    """The same data set; the loader processes together decode an image or mask at most once."""
    parts = (source.labeled, source.unlabeled, source.val, source.pseudo)
    store, numbers = SharedStore(2 * sum(map(len, parts))), count()
    labeled, unlabeled, val, pseudo = (
        [CachedSample(sample, store, next(numbers)) for sample in part] for part in parts
    )
    return replace(source, labeled=labeled, unlabeled=unlabeled, val=val, pseudo=pseudo)

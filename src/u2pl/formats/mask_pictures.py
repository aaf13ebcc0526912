"""Pictures of masks: class indices, or colours, with a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from u2pl.data.image_files import one_line
from u2pl.data.mask_files import mask_size, read_mask
from u2pl.data.mask_values import MaskValues
from u2pl.data.readers.pascal_voc import voc_palette
from u2pl.errors import InputError
from u2pl.formats.structure import Mask, Size
from u2pl.structures import IGNORE_INDEX

Colour = tuple[int, int, int]


def index_png(mask: Mask, palette: Sequence[Colour], *, ignored: Colour = (255, 255, 255)) -> bytes:
    """(H, W) class indices -> a png that holds them, and the colours of the classes as its palette."""
    table = np.array(voc_palette(), dtype=np.uint8)  # for indices without a colour of their own
    table[: len(palette)] = np.array(palette, dtype=np.uint8).reshape(-1, 3)
    table[IGNORE_INDEX] = ignored
    image = Image.fromarray(mask)
    image.putpalette(table.tobytes())
    return _png(image)


def colour_png(mask: Mask, palette: Sequence[Colour], ignored: Colour) -> bytes:
    """(H, W) class indices -> a png of their colours."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(palette)] = palette
    table[IGNORE_INDEX] = ignored
    return _png(Image.fromarray(table[mask]))


def _png(image: Image.Image) -> bytes:
    data = BytesIO()
    image.save(data, format="PNG")
    return data.getvalue()


@dataclass(frozen=True)
class MaskFile:
    """An image whose mask is a file."""

    file: str
    path: Path
    classes: tuple[str, ...]
    values: MaskValues | None = None  #: None: the file holds class indices
    unannotated: tuple[int, ...] = ()  #: those of ``values`` that have no annotation

    @property
    def size(self) -> Size:
        """(H, W), from the header."""
        with one_line("mask", self.path):
            return mask_size(self.path)

    def labels(self) -> set[str]:
        """All names of the legend."""
        return set(self.classes)

    def draw(self, size: Size, numbers: Mapping[str, int], fill: int) -> Mask:
        """(H, W) class indices. What has no annotation gets ``fill``; ignored pixels stay so."""
        with one_line("mask", self.path):
            raw = read_mask(self.path, colours=self.values is not None and self.values.colours)
        indices = self._indices(raw)
        if raw.shape != size:
            raise InputError(f"mask {self.path} has another size than its header says; replace the file")
        table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
        table[: len(self.classes)] = [numbers[name] for name in self.classes]
        return np.where(np.isin(raw, self.unannotated), np.uint8(fill), table[indices])

    def _indices(self, raw: npt.NDArray[Any]) -> Mask:
        if self.values is not None:
            return self.values.apply(raw.astype(np.int64), self.path)
        known = (raw >= 0) & ((raw < len(self.classes)) | (raw == IGNORE_INDEX))
        if not known.all():
            raise InputError(
                f"mask {self.path} holds the value {raw[~known][0]}, but there are {len(self.classes)} classes; "
                "correct the mask or classes.txt"
            )
        return raw.astype(np.uint8)

"""Masks that a trained network has drawn for unlabeled images: a png for each image, in one folder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from u2pl.data.image_files import one_line
from u2pl.data.mask_files import read_mask
from u2pl.data.source import DataSource, HasNotes, Sample, image_size
from u2pl.data.splits import some
from u2pl.errors import InputError
from u2pl.structures import IGNORE_INDEX


def mask_path(folder: Path, sample: Sample) -> Path:
    """The file of a sample's pseudo-mask."""
    return folder / f"{sample.name}.png"


@dataclass(frozen=True)
class PseudoLabeled:
    """An unlabeled sample with a pseudo-mask in place of its mask."""

    sample: Sample
    path: Path  #: of the pseudo-mask: class indices at the size of the sample's image
    num_classes: int

    @property
    def name(self) -> str:
        return self.sample.name

    @property
    def has_mask(self) -> bool:
        return True

    @property
    def tags(self) -> frozenset[int] | None:
        return self.sample.tags

    def image(self) -> Tensor:
        """(3, H, W) uint8 RGB, as the sample reads it."""
        return self.sample.image()

    def image_size(self) -> tuple[int, int]:
        """(H, W) of the image, read from its header if the sample supports it."""
        return image_size(self.sample)

    def notes(self) -> tuple[str, ...]:
        """Notes of the sample."""
        return self.sample.notes() if isinstance(self.sample, HasNotes) else ()

    def mask(self) -> Tensor:
        """(H, W) uint8 class indices; 255 is ignored.

        Raises InputError naming the file if it is missing, unreadable, of another size than the image, or holds a value
        that is no class.
        """
        with one_line("pseudo-mask", self.path):
            values = read_mask(self.path, colours=False)
        if values.shape != self.image_size():
            (height, width), (rows, columns) = values.shape, self.image_size()
            raise InputError(
                f"pseudo-mask {self.path} is {width}x{height} but its image {self.name} is {columns}x{rows} "
                "(width x height); `u2pl distill` into another folder makes new ones"
            )
        present = np.unique(values)
        bad = present[((present < 0) | (present >= self.num_classes)) & (present != IGNORE_INDEX)]
        if bad.size:
            raise InputError(
                f"pseudo-mask {self.path} holds {bad[0]}, but there are {self.num_classes} classes; `u2pl distill` "
                "into another folder makes new ones"
            )
        return torch.from_numpy(values.astype(np.uint8))


def with_pseudo_masks(source: DataSource, folder: Path) -> DataSource:
    """The data set, where each unlabeled image has a pseudo-mask in ``folder``.

    The unlabeled images stay in their list. Raises InputError if there are none, or if one has no pseudo-mask. The
    files are not read yet.
    """
    if not source.unlabeled:
        raise InputError("data.pseudo_masks: there is no unlabeled image for them; leave it out")
    if not folder.is_dir():
        raise InputError(f"data.pseudo_masks: there is no folder {folder}; give what `u2pl distill` wrote, or null")
    pseudo = [PseudoLabeled(sample, mask_path(folder, sample), len(source.classes)) for sample in source.unlabeled]
    missing = [sample.name for sample in pseudo if not sample.path.is_file()]
    if missing:
        raise InputError(
            f"data.pseudo_masks: {folder} has no mask of {some(missing)}; `u2pl distill` with the same --out makes them"
        )
    return replace(source, pseudo=pseudo)

"""SYNTHIA-RAND-CITYSCAPES (Ros et al. 2016): rendered streets, with 16 of the 19 classes of Cityscapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from u2pl.data.class_mapping import Lookup, compose
from u2pl.data.deep_png import is_deep_png, read_deep_png
from u2pl.data.files import INVALID, FileSample
from u2pl.data.image_files import opened
from u2pl.data.readers.cityscapes import CLASSES as CITYSCAPES
from u2pl.data.readers.synthetic import read_synthetic
from u2pl.data.source import DataSource
from u2pl.data.splits import Labeled
from u2pl.errors import InputError
from u2pl.paths import usable
from u2pl.structures import IGNORE_INDEX

_ABSENT = ("terrain", "truck", "train")  # in no image
CLASSES = tuple(name for name in CITYSCAPES if name not in _ABSENT)

#: Class of each SYNTHIA id; None: ignored.
_IDS = (
    *(None, "sky", "building", "road", "sidewalk", "fence", "vegetation", "pole", "car", "traffic sign", "person"),
    *("bicycle", "motorcycle", None, None, "traffic light", None, "rider", None, "bus", None, "wall", None),
)
_LOOKUP: Lookup = (
    *(IGNORE_INDEX if name is None else CLASSES.index(name) for name in _IDS),
    *[INVALID] * (IGNORE_INDEX - len(_IDS)),
    IGNORE_INDEX,
)


@dataclass(frozen=True)
class SynthiaSample(FileSample):
    """An image with a 16-bit mask of several channels: the first holds class ids, the second instance ids."""

    def _decoded_mask(self, path: Path) -> npt.NDArray[Any]:
        with opened(path) as file:
            deep = is_deep_png(file)
        return read_deep_png(path)[..., 0] if deep else super()._decoded_mask(path)


def synthia(
    *,
    root: str | Path,
    labeled: Labeled = None,
    unlabeled: str | Path | None = None,
    val: str | Path | None = None,
    classes: Sequence[str] | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> DataSource:
    """Read SYNTHIA-RAND-CITYSCAPES from ``RGB/*.png`` and ``GT/LABELS/*.png``.

    Masks are mapped to Cityscapes classes. Split files list numbers (``0000000``) or image paths.

    Args:
        labeled: None for all images with masks, a count or fraction of them (a seeded draw that covers as many classes
            as possible), a split file, or False for none.
        unlabeled: a split file; None for the other images.
        val: a split file; None for no validation.
        classes: names of the classes to keep, in this order; pixels of the others are ignored.
        scale: factor by which images and masks are resized when read.

    Raises InputError naming the file or key if the data set cannot be used.
    """

    def sample(name: str, image: Path, mask: Path | None, num_classes: int, lookup: Lookup | None) -> FileSample:
        return SynthiaSample(name, image, mask, num_classes, compose(_LOOKUP, lookup), scale)

    root = usable(root, "root:")
    if (root / "GT" / "COLOR").is_dir() and not (root / "GT" / "LABELS").is_dir():
        raise InputError(f"{root / 'GT'} holds COLOR but not LABELS; the masks are those of GT/LABELS")
    return read_synthetic(
        root=root,
        images="RGB",
        masks="GT/LABELS",
        sample=sample,
        known=CLASSES,
        labeled=labeled,
        unlabeled=unlabeled,
        val=val,
        classes=classes,
        seed=seed,
    )

"""GTA5, "Playing for Data" (Richter et al. 2016): images of a video game, with the 19 classes of Cityscapes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from u2pl.data.class_mapping import Lookup, compose
from u2pl.data.files import FileSample
from u2pl.data.readers.cityscapes import CLASSES, LABEL_ID_LOOKUP
from u2pl.data.readers.synthetic import read_synthetic
from u2pl.data.source import DataSource
from u2pl.data.splits import Labeled
from u2pl.paths import usable
from u2pl.structures import IGNORE_INDEX

_LICENCE_PLATE = 34  # label id here; Cityscapes has -1, stored as 255
_LOOKUP: Lookup = (
    *LABEL_ID_LOOKUP[:_LICENCE_PLATE],
    IGNORE_INDEX,
    *LABEL_ID_LOOKUP[_LICENCE_PLATE + 1 :],
)


def gta5(
    *,
    root: str | Path,
    labeled: Labeled = None,
    unlabeled: str | Path | None = None,
    val: str | Path | None = None,
    classes: Sequence[str] | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> DataSource:
    """Read GTA5 from ``images/*.png`` and ``labels/*.png``, palette or gray, with the label ids of Cityscapes.

    Masks are mapped to train ids. Split files list numbers (``00001``) or image paths.

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
        return FileSample(name, image, mask, num_classes, compose(_LOOKUP, lookup), scale)

    return read_synthetic(
        root=usable(root, "root:"),
        images="images",
        masks="labels",
        sample=sample,
        known=CLASSES,
        labeled=labeled,
        unlabeled=unlabeled,
        val=val,
        classes=classes,
        seed=seed,
    )

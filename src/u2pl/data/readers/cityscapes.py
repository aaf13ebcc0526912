"""Cityscapes: leftImg8bit and gtFine, 19 classes (the train ids)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from u2pl.data.class_mapping import Lookup, compose
from u2pl.data.classes import Palette, keep
from u2pl.data.files import INVALID, FileSample
from u2pl.data.source import DataSource
from u2pl.data.splits import Labeled, Pool, refuse_overlap
from u2pl.errors import InputError
from u2pl.paths import usable
from u2pl.structures import IGNORE_INDEX

CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)

PALETTE: Palette = (
    *((128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30)),
    *((220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142)),
    *((0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32)),
)

#: Label id of each train id. Other ids up to 33 are ignored, and so is 255 (-1, a licence plate).
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
LABEL_ID_LOOKUP = tuple(
    LABEL_IDS.index(value) if value in LABEL_IDS else IGNORE_INDEX if value in (*range(34), IGNORE_INDEX) else INVALID
    for value in range(256)
)

_ENDING = "_leftImg8bit"


def cityscapes(
    *,
    root: str | Path,
    labeled: Labeled = None,
    unlabeled: str | Path | None = None,
    val: str | Path | None = None,
    classes: Sequence[str] | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> DataSource:
    """Read Cityscapes from ``leftImg8bit/<set>/<city>`` and ``gtFine/<set>/<city>``.

    Masks are the ``labelTrainIds`` files. If one is missing, its ``labelIds`` file is mapped to train ids. Split files
    list ids (``ulm_000079_000019``) or image paths.

    Args:
        labeled: None for all of ``train``, a count or fraction of it (a seeded draw that covers as many classes as
            possible), a split file, or False for none.
        unlabeled: a split file; None for the rest of ``train``.
        val: a split file; None for all of ``val``.
        classes: names of the classes to keep, in this order; pixels of the others are ignored.
        scale: factor by which images and masks are resized when read.

    Raises InputError naming the file or key if the data set cannot be used.
    """
    root = usable(root, "root:")
    images = sorted((root / "leftImg8bit").glob(f"*/*/*{_ENDING}.png"))
    if not images:
        raise InputError(f"{root / 'leftImg8bit'} holds no <set>/<city>/*{_ENDING}.png; correct the root")
    names, lookup = keep(CLASSES, classes)
    pool = Pool(
        [_sample(path, root, len(names), lookup, scale) for path in images],
        root=root,
        folders=(root,),
        image_folder="leftImg8bit",
        ending=_ENDING,
    )
    train = [name for name in pool.samples if name.startswith("train/")]
    labeled_names = pool.labeled(labeled, among=train, seed=seed)
    if val is None:
        val_names = pool.with_mask(name for name in pool.samples if name.startswith("val/"))
    else:
        val_names = pool.listed(val, key="val", masks=True)
    refuse_overlap(labeled_names, val_names, root)
    if unlabeled is None:
        taken = {*labeled_names, *val_names}
        unlabeled_names = [name for name in train if name not in taken]
    else:
        unlabeled_names = pool.listed(unlabeled, key="unlabeled", masks=False)
    return DataSource(
        classes=names,
        labeled=pool.pick(labeled_names),
        unlabeled=pool.pick(unlabeled_names),
        val=pool.pick(val_names),
        palette=palette_of(names),
        lookup=lookup,
    )


def palette_of(names: Sequence[str]) -> Palette:
    """The colours of the named classes."""
    return tuple(PALETTE[CLASSES.index(name)] for name in names)


def _sample(path: Path, root: Path, num_classes: int, lookup: Lookup | None, scale: float) -> FileSample:
    name = path.relative_to(root / "leftImg8bit").with_name(path.stem.removesuffix(_ENDING)).as_posix()
    train_ids = root / "gtFine" / f"{name}_gtFine_labelTrainIds.png"
    label_ids = root / "gtFine" / f"{name}_gtFine_labelIds.png"
    if train_ids.is_file():
        return FileSample(name, path, train_ids, num_classes, lookup, scale)
    if label_ids.is_file():
        return FileSample(name, path, label_ids, num_classes, compose(LABEL_ID_LOOKUP, lookup), scale)
    return FileSample(name, path, None, num_classes, lookup, scale)

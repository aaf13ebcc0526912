"""PASCAL VOC 2012 in the VOCdevkit layout, with or without the extra masks of SBD (SegmentationClassAug)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from u2pl.data.classes import Palette, keep
from u2pl.data.files import FileSample
from u2pl.data.source import DataSource
from u2pl.data.splits import IMAGE_SUFFIXES, Labeled, Pool, refuse_overlap
from u2pl.data.tags import tagged
from u2pl.errors import InputError

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def pascal_voc(
    *,
    root: str | Path,
    labeled: Labeled = None,
    unlabeled: str | Path | None = None,
    val: str | Path | None = None,
    classes: Sequence[str] | None = None,
    tags: str | Path | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> DataSource:
    """Read VOC 2012; ``root`` is VOCdevkit, VOCdevkit/VOC2012, or a folder with the latter's layout.

    Split files are found by their path, relative to the root, or in ``ImageSets/Segmentation``. Masks are read from
    ``SegmentationClassAug`` if that folder exists, otherwise from ``SegmentationClass``.

    Args:
        labeled: None for ``train.txt``, a count or fraction of it (a seeded draw that covers as many classes as
            possible), a split file, or False for none.
        unlabeled: a split file; None for the rest of ``train.txt`` and all of ``unlabeled.txt``, if there is one.
        val: a split file; None for ``val.txt``.
        classes: names of the classes to keep, in this order; pixels of the others are ignored.
        tags: tags of the unlabeled images, see :func:`u2pl.data.tags.tagged`. With tags, no labeled image is needed,
            and ``labeled`` may be 0.

    Raises InputError naming the file or key if the data set cannot be used.
    """
    home = _home(Path(root).expanduser())
    labeled = False if tags is not None and labeled == 0 else labeled
    lists = home / "ImageSets" / "Segmentation"
    names, lookup = keep(CLASSES, classes)
    pool = Pool(_samples(home, len(names), lookup, scale), root=home, folders=(home, lists), image_folder="JPEGImages")
    drawn = not isinstance(labeled, (str, Path))
    needs_train = drawn or (unlabeled is None and (lists / "train.txt").exists())
    needs_masks = drawn and labeled is not False and tags is None
    train = pool.listed(lists / "train.txt", key="labeled", masks=needs_masks) if needs_train else []
    labeled_names = pool.labeled(labeled, among=train, seed=seed, required=tags is None)
    val_names = pool.listed(val or lists / "val.txt", key="val", masks=True)
    refuse_overlap(labeled_names, val_names, home)
    if unlabeled is None:
        more = lists / "unlabeled.txt"
        extra = pool.listed(more, key="unlabeled", masks=False) if more.exists() else []
        # By default, labeled and validation images are not used as unlabeled images.
        taken = {*labeled_names, *val_names}
        unlabeled_names = [name for name in dict.fromkeys([*train, *extra]) if name not in taken]
    else:
        unlabeled_names = pool.listed(unlabeled, key="unlabeled", masks=False)
    unlabeled_samples, notes = tagged(pool, unlabeled_names, tags, known=CLASSES, kept=names)
    return DataSource(
        classes=names,
        labeled=pool.pick(labeled_names),
        unlabeled=unlabeled_samples,
        val=pool.pick(val_names),
        palette=tuple(voc_palette(len(CLASSES))[CLASSES.index(name)] for name in names),
        notes=notes,
        lookup=lookup,
    )


def voc_palette(count: int = 256) -> Palette:
    """The colours of VOC masks: each three bits of an index, lowest first, are bits of R, G and B, highest first."""
    return tuple(
        tuple(sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3))  # type: ignore[misc]
        for index in range(count)
    )


def _home(root: Path) -> Path:
    for home in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (home / "JPEGImages").is_dir():
            return home
    raise InputError(f"{root} has no folder JPEGImages; give the folder VOCdevkit or VOC2012 as root")


def _samples(home: Path, num_classes: int, lookup: tuple[int, ...] | None, scale: float) -> list[FileSample]:
    augmented = home / "SegmentationClassAug"
    folder = augmented if augmented.is_dir() else home / "SegmentationClass"
    masks = {path.stem: path for path in folder.glob("*.png")}
    images = sorted(path for path in (home / "JPEGImages").iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return [FileSample(path.stem, path, masks.get(path.stem), num_classes, lookup, scale) for path in images]

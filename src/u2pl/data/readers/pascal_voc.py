"""PASCAL VOC 2012 in the VOCdevkit layout, with or without the extra masks of SBD (SegmentationClassAug)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from u2pl.data.classes import Palette, keep, read_classes
from u2pl.data.files import FileSample
from u2pl.data.mask_values import MaskValues, read_labelmap
from u2pl.data.source import DataSource
from u2pl.data.splits import IMAGE_SUFFIXES, Labeled, Pool, refuse_overlap
from u2pl.data.tags import tagged
from u2pl.errors import InputError
from u2pl.paths import usable

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

_BORDER = "#e0e0c0"  # the colour of VOC's palette for 255, ignored pixels
_OWN_CLASSES = "if your classes are not VOC's, name them in {home}/classes.txt, one a line, or labelmap.txt"


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

    The classes are VOC's, unless ``labelmap.txt`` (a line ``name:r,g,b::`` for each class, as CVAT writes it) or
    ``classes.txt`` (a name a line) lies in the folder of ``JPEGImages``.

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
    home = _home(usable(root, "root:"))
    labeled = False if tags is not None and labeled == 0 else labeled
    lists = home / "ImageSets" / "Segmentation"
    known, values = _own_classes(home)
    names, lookup = keep(known, classes)
    samples = _samples(home, len(names), lookup, scale, values)
    pool = Pool(samples, root=home, folders=(home, lists), image_folder="JPEGImages")
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
    unlabeled_samples, notes = tagged(pool, unlabeled_names, tags, known=known, kept=names)
    return DataSource(
        classes=names,
        labeled=pool.pick(labeled_names),
        unlabeled=unlabeled_samples,
        val=pool.pick(val_names),
        palette=_palette(known, values, names),
        notes=notes,
        few_classes="" if known != CLASSES or classes is not None else _OWN_CLASSES.format(home=home),
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


def _own_classes(home: Path) -> tuple[tuple[str, ...], MaskValues | None]:
    """The names of the classes, and what the colours of masks mean; None: masks hold class indices."""
    if (home / "labelmap.txt").exists():
        values = read_labelmap(home / "labelmap.txt", ignored=_BORDER)
        return values.classes, values
    if (home / "classes.txt").exists():
        return read_classes(home / "classes.txt"), None
    return CLASSES, None


def _palette(known: Sequence[str], values: MaskValues | None, names: Sequence[str]) -> Palette:
    """The colours of the named classes."""
    colours = voc_palette(len(known)) if values is None else values.palette()
    return tuple(colours[list(known).index(name)] for name in names) if colours else ()


def _samples(
    home: Path, num_classes: int, lookup: tuple[int, ...] | None, scale: float, values: MaskValues | None
) -> list[FileSample]:
    augmented = home / "SegmentationClassAug"
    folder = augmented if augmented.is_dir() else home / "SegmentationClass"
    masks = {path.stem: path for path in folder.glob("*.png")}
    images = sorted(path for path in (home / "JPEGImages").iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return [FileSample(path.stem, path, masks.get(path.stem), num_classes, lookup, scale, values) for path in images]

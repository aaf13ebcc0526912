"""Shared by the readers of rendered data sets: a folder of images, a folder of masks, no predefined split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from u2pl.data.class_mapping import Lookup
from u2pl.data.classes import keep
from u2pl.data.files import FileSample
from u2pl.data.readers.cityscapes import palette_of
from u2pl.data.source import DataSource
from u2pl.data.splits import Labeled, Pool, is_image, refuse_overlap
from u2pl.errors import InputError

#: (name, image, mask or None, number of classes, lookup of the kept classes) -> the sample
MakeSample = Callable[[str, Path, "Path | None", int, "Lookup | None"], FileSample]


def read_synthetic(
    *,
    root: Path,
    images: str,
    masks: str,
    sample: MakeSample,
    known: Sequence[str],
    labeled: Labeled,
    unlabeled: str | Path | None,
    val: str | Path | None,
    classes: Sequence[str] | None,
    seed: int,
) -> DataSource:
    """Read images and masks from two folders, matched by stem. Classes have Cityscapes' names.

    Raises InputError naming the file or key if the data set cannot be used.
    """
    folder = root / images
    paths = sorted(path for path in folder.iterdir() if is_image(path)) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder} holds no image; correct the root, which has the folders {images} and {masks}")
    names, lookup = keep(known, classes)
    by_stem = {path.stem: path for path in (root / masks).glob("*.png")}
    samples = [sample(path.stem, path, by_stem.get(path.stem), len(names), lookup) for path in paths]
    pool = Pool(samples, root=root, folders=(root,), image_folder=images)
    val_names = [] if val is None else pool.listed(val, key="val", masks=True)
    held_out = set(val_names)
    train = [name for name in pool.samples if name not in held_out]
    labeled_names = pool.labeled(labeled, among=train, seed=seed)
    refuse_overlap(labeled_names, val_names, root)
    if unlabeled is None:
        taken = set(labeled_names)
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

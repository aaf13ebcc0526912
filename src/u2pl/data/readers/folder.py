"""A folder of images and masks: the layout for your own data.

    root/images/**/name.jpg      jpg, jpeg, png, tif, tiff, bmp or webp, in upper or lower case
    root/masks/**/name.png       class indices, 255 = ignored; same relative path as the image; png, tif, gif or bmp
    root/classes.txt             one class name per line (optional)

An image without a mask is unlabeled. With ``val="val"`` the images under ``images/val`` are for validation. Images in
*every other* subfolder train: keep a test set elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from u2pl.data.alike import alike
from u2pl.data.classes import keep, read_classes
from u2pl.data.files import FileSample
from u2pl.data.image_files import ImageReader
from u2pl.data.mask_values import MaskValues, refuse_binary, refuse_numbers
from u2pl.data.mask_values import mask_values as read_mask_values
from u2pl.data.pairing import SAME_NAME, Masks
from u2pl.data.source import DataSource
from u2pl.data.splits import Labeled, Pool, is_image, refuse_overlap
from u2pl.data.structure import NO_SCORE
from u2pl.data.tags import tagged
from u2pl.data.validation import ENOUGH, LEAST, SHARE, draw_validation, number_of, read_groups
from u2pl.data.walking import files_below, skipped_notes
from u2pl.errors import InputError
from u2pl.paths import usable
from u2pl.structures import IGNORE_INDEX

AUTO, NONE = "auto", "none"
_COVERED = 2000  # labeled images whose masks are read to cover the classes
_DIGITS = 10


def folder(
    *,
    root: str | Path,
    labeled: Labeled = None,
    val: str | Path | float | None = None,
    groups: str | Path | None = None,
    classes: Sequence[str] | None = None,
    mask_values: str | None = None,
    mask_pattern: str = SAME_NAME,
    resize_masks: bool = False,
    bands: Sequence[int] | None = None,
    value_range: Sequence[float] | None = None,
    tags: str | Path | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> DataSource:
    """Read a folder in the layout above.

    Args:
        labeled: which training images are labeled: None for all that have masks, a count, a fraction in (0, 1], or a
            text file of stems (``train/0001``, or ``0001`` if that is unique). A count or fraction is a seeded draw
            that covers as many classes as possible. All other training images are unlabeled. False: none is labeled;
            ``classes.txt`` must name the classes.
        val: a subfolder of ``images``, a text file of stems, or a share or count of the labeled images, drawn as in
            :func:`u2pl.data.validation.draw_validation`. ``auto``: ``images/val`` if it holds masks, else a fifth of
            the labeled images, if there are twelve. None or ``none`` for no validation.
        groups: csv file of the group of each labeled image, which a drawn ``val`` keeps together; None: runs of frames.
            With another ``val`` it may name any images. Intervals draw validation images of one group together.
        classes: names of the classes to keep; pixels of the others are ignored.
        mask_values: classes of gray values or colours in the masks, see
            :func:`u2pl.data.mask_values.mask_values`; None: values are class indices.
        mask_pattern: name of a mask without its ending, such as ``{stem}_mask``; see
            :class:`u2pl.data.pairing.Masks`.
        resize_masks: resize a mask of another size to the size of its image, by the nearest pixel.
        bands, value_range: see :class:`u2pl.data.image_files.ImageReader`.
        tags: tags of the unlabeled images, see :func:`u2pl.data.tags.tagged`. With tags, no labeled image is needed,
            and ``labeled`` may be 0.
        scale: factor by which images and masks are resized when read.

    Raises InputError naming the file or key if the data set cannot be used.
    """
    root = usable(root, "root:")
    paths, left_out = _images(root / "images")
    masks = Masks(root / "masks", mask_pattern)
    by_image = {path: mask for path in paths if (mask := masks.of(path, root / "images")) is not None}
    unused = masks.unused(paths, root / "images")
    labeled = False if tags is not None and labeled == 0 else labeled
    values = _values(root, mask_values)
    known = values.classes if values is not None else _class_names(root, by_image, read=labeled is not False)
    names, lookup = keep(known, classes)
    options: dict[str, Any] = {"reader": _reader(bands, value_range), "resize_mask": resize_masks, "values": values}
    samples = [
        FileSample(_stem(path, root / "images"), path, by_image.get(path), len(names), lookup, scale, **options)
        for path in paths
    ]
    pool = Pool(samples, root=root, folders=(root,), image_folder="images")
    validation = _validation(pool, val, labeled, names, seed=seed, groups=groups)
    val_names, without_mask = validation.names, validation.without_mask
    held_out = {*val_names, *without_mask}
    train = [name for name in pool.samples if name not in held_out]
    labeled_names = pool.labeled(labeled, among=train, seed=seed, required=tags is None)
    if validation.facts:  # drawn, perhaps from the images that a split file lists
        labeled_names = [name for name in labeled_names if name not in held_out]
    refuse_overlap(labeled_names, val_names, root)
    chosen = set(labeled_names)
    others = [name for name in train if name not in chosen]
    unlabeled, notes = tagged(pool, others, tags, known=known, kept=names)
    return DataSource(
        classes=names,
        labeled=pool.pick(labeled_names),
        unlabeled=unlabeled,
        val=pool.pick(val_names),
        notes=(*left_out, *unused, *validation.notes, *_notes(pool, train, without_mask), *notes),
        facts=validation.facts,
        val_groups=alike(val_names, validation.groups or _listed_groups(pool, groups, val_names)),
        lookup=lookup,
        palette=values.palette() if values is not None and lookup is None else (),
    )


def _images(folder: Path) -> tuple[list[Path], list[str]]:
    """The images below a folder, and notes about folders that are left out."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected images in images/ and masks in masks/ below root")
    files, skipped = files_below(folder, is_image)
    if not files:
        raise InputError(f"{folder} holds no image; put jpg or png files there")
    return files, skipped_notes(skipped, is_image)


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _reader(bands: Sequence[int] | None, value_range: Sequence[float] | None) -> ImageReader:
    return ImageReader(
        bands=None if bands is None else tuple(bands),
        value_range=None if value_range is None else (value_range[0], value_range[1]),
    )


def _values(root: Path, mask_values: str | None) -> MaskValues | None:
    """What the values of masks mean; None: they are class indices."""
    if mask_values is None:
        return None
    listed = read_classes(root / "classes.txt") if (root / "classes.txt").exists() else None
    return read_mask_values(mask_values, (root,), listed)


def _class_names(root: Path, masks: dict[Path, Path], *, read: bool) -> tuple[str, ...]:
    """Names from classes.txt, or class_0, class_1, ... up to the largest index in any mask that has an image.

    ``read``: whether masks may be read. Raises InputError if masks hold no class indices.
    """
    file, folder = root / "classes.txt", root / "masks"
    # With 255 classes every value is a valid class, so no mask is rejected yet.
    samples = [FileSample(image.stem, mask, mask, IGNORE_INDEX) for image, mask in masks.items()]
    if file.exists():
        known = read_classes(file)
        if len(known) == 2 and read:
            refuse_binary(samples, folder, known[1])
        return known
    if not read:
        raise InputError(f"{file} is missing; no training mask is read here, so name the classes there")
    with ThreadPoolExecutor() as threads:
        values = frozenset().union(*threads.map(FileSample.raw_values, samples))
    refuse_binary(samples, folder)
    refuse_numbers(values, folder)
    values -= {IGNORE_INDEX}
    if not values:
        raise InputError(
            f"{root} has no labeled image; add masks for at least one training image to {folder}, or tags and the "
            "names of the classes in classes.txt"
        )
    return tuple(f"class_{index}" for index in range(max(values) + 1))


@dataclass(frozen=True)
class _Validation:
    """The validation images."""

    names: Sequence[str] = ()
    without_mask: Sequence[str] = ()  #: names in the validation folder that have no mask
    notes: tuple[str, ...] = ()  #: problems
    facts: tuple[str, ...] = ()  #: about a draw
    groups: Mapping[str, str] | None = None  #: that a draw keeps together


def _validation(
    pool: Pool,
    val: str | Path | float | None,
    labeled: Labeled,
    classes: Sequence[str],
    *,
    seed: int,
    groups: str | Path | None,
) -> _Validation:
    """The validation images that ``val`` is."""
    if val is None:
        return _Validation()
    images = pool.root / "images"
    subfolder = Path(str(val)).as_posix().strip("/")
    if val == AUTO and any(pool.samples[name].has_mask for name in pool.samples if name.startswith("val/")):
        subfolder = "val"
    if subfolder in ("", ".") or not (images / subfolder).is_dir():
        if val == NONE:
            return _Validation()
        if pool.find(str(val)) is not None:
            return _Validation(pool.listed(str(val), key="val", masks=True))
        return _drawn(pool, val, labeled, classes, seed=seed, groups=groups)
    inside = [name for name in pool.samples if name.startswith(f"{subfolder}/")]
    with_mask = pool.with_mask(inside)
    if not with_mask:
        raise InputError(f"val: {images / subfolder} holds no image with a mask; add masks or leave val out")
    return _Validation(with_mask, [name for name in inside if not pool.samples[name].has_mask])


def _drawn(
    pool: Pool,
    val: str | Path | float,
    labeled: Labeled,
    classes: Sequence[str],
    *,
    seed: int,
    groups: str | Path | None,
) -> _Validation:
    """As :func:`_validation`, for a share or a count of the labeled images."""
    candidates = pool.with_mask(pool.samples)
    if isinstance(labeled, (str, Path)):
        listed = set(pool.listed(labeled, key="labeled", masks=True))
        others = [name for name in candidates if name not in listed]
        candidates = others if len(others) >= LEAST else [name for name in candidates if name in listed]
    if val == AUTO and len(candidates) < ENOUGH:
        few = f"val: {len(candidates)} labeled images are too few to hold some out, so {NO_SCORE}"
        return _Validation(notes=(f"{few}; data.val=4 does it all the same",) if candidates else ())
    count = (
        max(LEAST, round(SHARE * len(candidates))) if val == AUTO else number_of(_number(pool, val), len(candidates))
    )
    presence = pool.presence(candidates) if len(candidates) <= _COVERED else dict.fromkeys(candidates, frozenset[int]())
    told = None if groups is None else read_groups(_groups_file(pool, groups), candidates)
    try:
        names = draw_validation(presence, count, classes, seed=seed, groups=told)
    except InputError as error:
        if val != AUTO:
            raise
        return _Validation(notes=(f"{error}, so {NO_SCORE}",))
    fact = f"val: {len(names)} of {len(candidates)} labeled images are drawn for validation"
    return _Validation(
        names, facts=(f"{fact}; data.val=none trains on them, too" if val == AUTO else fact,), groups=told
    )


def _number(pool: Pool, val: str | Path | float) -> float:
    """The share or the count that ``val`` is. Raises InputError if it is neither."""
    text = str(val)
    if text.isdecimal() and len(text) < _DIGITS:
        return int(text)
    try:
        return float(text)
    except ValueError:
        known = sorted(path.name for path in (pool.root / "images").iterdir() if path.is_dir())
        raise InputError(
            f"val: {val} is neither a subfolder of {pool.root / 'images'} ({', '.join(known) or 'it has none'}) "
            "nor a text file, nor a share such as 0.2; give one of them"
        ) from None


def _listed_groups(pool: Pool, groups: str | Path | None, names: Sequence[str]) -> Mapping[str, str] | None:
    """The groups of validation images that are not drawn; the file may say nothing of them."""
    if groups is None or not names:
        return None
    return read_groups(_groups_file(pool, groups), pool.with_mask(pool.samples), whole=False)


def _groups_file(pool: Pool, groups: str | Path) -> Path:
    file = pool.find(groups)
    if file is None:
        raise InputError(f"groups: there is no file {groups}; give a csv file with the header image,group")
    return file


def _notes(pool: Pool, train: Sequence[str], without_mask: Sequence[str]) -> tuple[str, ...]:
    notes = [f"validation image {pool.samples[name].image_path} has no mask; it is not used" for name in without_mask]
    for held_out in ("val", "test"):
        count = sum(name.startswith(f"{held_out}/") for name in train)
        if count:
            notes.append(f"{pool.root / 'images' / held_out}: its {count} images train; keep held-out images elsewhere")
    return tuple(notes)

"""The command `u2pl import-masks`: what an annotation tool exported -> masks to train on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import torch
from rich.console import Console

from u2pl.data.classes import read_classes
from u2pl.data.image_files import stored
from u2pl.data.mask_files import MASK_SUFFIXES
from u2pl.data.mask_values import IGNORED
from u2pl.data.readers.pascal_voc import voc_palette
from u2pl.data.splits import IMAGE_SUFFIXES, is_image
from u2pl.data.text import check_name
from u2pl.data.walking import files_below
from u2pl.engine.checkpoint import unwritable, write_atomically, write_text_atomically
from u2pl.errors import InputError, quoted
from u2pl.formats import FORMATS, UNSURE, Annotations
from u2pl.formats.reading import inside, unpacked
from u2pl.formats.structure import Found, Mask, distinct
from u2pl.report.pictures import is_signed, save_mask
from u2pl.report.printing import track
from u2pl.structures import IGNORE_INDEX

#: Names of what annotators are not sure of. Its pixels do not train.
_NO_CLASSES = (UNSURE, IGNORED)
_STAGING = ".u2pl-import"  # masks wait here until all are drawn


@dataclass(frozen=True)
class Imported:
    """What became of the annotations of one command."""

    written: int
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def import_masks(
    file: Path,
    out: Path,
    *,
    format: str,
    console: Console,
    images: Path | None = None,
    classes: Path | None = None,
    background: str | None = None,
    overwrite: bool = False,
) -> Imported:
    """Write ``masks/STEM.png`` (class indices) and ``classes.txt`` from annotations, in the layout `folder` reads.

    All masks are drawn before the first takes its place. Raises InputError, and leaves all files as they were, if the
    annotations are damaged, contradict themselves or the images, or a mask would replace a file of others.

    Args:
        file: a json, xml, zip or folder, as the tool exported it.
        format: one of :data:`u2pl.formats.FORMATS`.
        images: the folder of images. Annotations are matched with its files by their names, and compared in size.
        classes: names of the classes, one a line, in the order of their indices. None: those of ``out/classes.txt``,
            or else of the annotations.
        background: the class of pixels without annotation, index 0 if no list of classes says else. None: such pixels
            are ignored.
        overwrite: also replace masks that u2pl did not write.
    """
    if format not in FORMATS:
        raise InputError(f"--format {quoted(format)}: should be {', '.join(FORMATS)}")
    if not file.exists():
        raise InputError(f"{file} is missing; give what the tool exported")
    with unpacked(file) as place:
        try:
            return _import(FORMATS[format].read(place), out, console, images, classes, background, overwrite)
        except InputError as error:
            if place == file:
                raise
            raise InputError(str(error).replace(str(place), str(file))) from error


def _import(
    found: Annotations,
    out: Path,
    console: Console,
    images: Path | None,
    classes: Path | None,
    background: str | None,
    overwrite: bool,
) -> Imported:
    if background is None and not any(image.labels() for image in found.images):
        raise InputError("there is no image with annotations in it; annotate some, or give another file")
    names = _names(found, out, classes, background)
    numbers = {name: number for number, name in enumerate(names)} | dict.fromkeys(_NO_CLASSES, IGNORE_INDEX)
    fill = IGNORE_INDEX if background is None else numbers[background]
    files = None if images is None else _files(images)
    targets = _targets(found.images, files, images)
    if background is None:  # else an image without annotation is background
        targets = {stem: image for stem, image in targets.items() if image.labels()}
    _refuse_replacing(out, targets, names, overwrite=overwrite)
    _refuse_renumbering(out, targets, names, listed=classes is not None)
    colours = dict(zip(names, voc_palette(len(names)), strict=True)) | dict(found.palette)
    palette = distinct(tuple(colours[name] for name in names))
    staging = out / _STAGING
    existed = out.exists()
    try:
        for stem, image in track(targets.items(), "drawing", total=len(targets), console=console):
            mask = _drawn(image, numbers, fill, None if files is None else files[stem])
            path = staging / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, partial(save_mask, mask=torch.from_numpy(mask), palette=palette))
        for stem in targets:
            path = out / "masks" / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / f"{stem}.png", path)
        write_text_atomically(out / "classes.txt", "".join(f"{name}\n" for name in names))
    except OSError as error:
        raise unwritable(out, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not existed and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
    empty = len(found.images) - len(targets)
    notes = [f"{empty} of {len(found.images)} images have no annotation; they are left out"] if empty else []
    return Imported(len(targets), names, (*found.notes, *notes))


def _names(found: Annotations, out: Path, classes: Path | None, background: str | None) -> tuple[str, ...]:
    """The classes by index. Raises InputError for a name in the annotations that a given list does not have."""
    used = set().union(*(image.labels() for image in found.images)) - set(_NO_CLASSES)
    known = out / "classes.txt"
    path = classes or (known if known.is_file() else None)
    if path is None:
        listed = [name for name in dict.fromkeys([*found.classes, *sorted(used)]) if name not in _NO_CLASSES]
        if background is not None and background not in listed:
            listed = [background, *listed]
        for name in listed:
            check_name(name, "the annotations")
            if not name.strip() or name != name.strip():
                raise InputError(f"the class {quoted(name)} begins or ends with a space, or is empty; rename it")
        if not listed:
            raise InputError("the annotations name no class; annotate some images, or give --classes")
        if len(listed) > IGNORE_INDEX:
            raise InputError(f"the annotations name {len(listed)} classes; at most {IGNORE_INDEX} are possible")
        return tuple(listed)
    names = _listed(path)
    unknown = sorted(used - set(names))
    if unknown:
        raise InputError(f"the class {quoted(unknown[0])} of the annotations is not in {path} ({', '.join(names)})")
    if background is not None and background not in names:
        raise InputError(f"--background {quoted(background)}: is not in {path} ({', '.join(names)})")
    return names


def _listed(path: Path) -> tuple[str, ...]:
    """The classes that a text file lists."""
    return tuple(name for name in read_classes(path) if name not in _NO_CLASSES)


def _targets(found: Sequence[Found], files: Mapping[str, Path] | None, images: Path | None) -> dict[str, Found]:
    """The annotated images by the path of their masks without ending."""
    by_name = None if files is None else _by_name(files)
    targets: dict[str, Found] = {}
    for image in found:
        file = inside(image.file, "the annotations")
        stem = str(PurePosixPath(_matched(file, by_name, images)))
        if stem in targets:
            remedy = "rename one" if images is not None else "rename one, or give --images"
            raise InputError(f"{file} and {targets[stem].file} in the annotations would get the same mask; {remedy}")
        targets[stem] = image
    return targets


def _files(images: Path) -> dict[str, Path]:
    """The images below a folder, by their paths in it without ending."""
    if not images.is_dir():
        raise InputError(f"--images {images} is no folder; give the folder of the images")
    paths, _ = files_below(images, is_image)
    if not paths:
        raise InputError(f"--images {images} holds no image (known: {', '.join(sorted(IMAGE_SUFFIXES))})")
    files: dict[str, Path] = {}
    for path in paths:
        files.setdefault(path.relative_to(images).with_suffix("").as_posix(), path)
    return files


def _by_name(files: Iterable[str]) -> dict[str, list[str]]:
    """Stems of images by each end of their paths, composed: a/b/c by c, b/c and a/b/c."""
    ends: dict[str, list[str]] = {}
    for stem in files:
        parts = normalize("NFC", stem).split("/")
        for start in range(len(parts)):
            ends.setdefault("/".join(parts[start:]), []).append(stem)
    return ends


def _matched(file: str, by_name: Mapping[str, list[str]] | None, images: Path | None) -> str:
    """The stem of an annotated image, relative to the folder of images if that is known."""
    path = PurePosixPath(file)
    stem = str(path.with_suffix("")) if path.suffix.lower() in (*IMAGE_SUFFIXES, *MASK_SUFFIXES) else file
    if by_name is None:
        return stem
    stem = normalize("NFC", stem)  # some systems write ä as two characters
    parts = PurePosixPath(stem).parts
    for start in range(len(parts)):  # the longest end that is known
        matches = by_name.get("/".join(parts[start:]), [])
        exact = [match for match in matches if normalize("NFC", match) == stem]
        if exact or len(matches) == 1:
            return (exact or matches)[0]
        if matches:
            raise InputError(f"--images {images}: {file} may be {matches[0]} or {matches[1]}; rename one of them")
    raise InputError(f"--images {images}: there is no image called {file}, which the annotations name")


def _refuse_replacing(out: Path, targets: Mapping[str, Found], names: Sequence[str], *, overwrite: bool) -> None:
    known = out / "classes.txt"
    if not overwrite and known.is_file() and _listed(known) != tuple(names):
        raise InputError(f"--out {out}: {known} names other classes; give these, or add --overwrite")
    for stem in targets:
        path = out / "masks" / f"{stem}.png"
        if path.is_dir():
            raise InputError(f"--out {out}: {path} is a folder; move it away")
        if not overwrite and path.exists() and not is_signed(path):
            raise InputError(
                f"--out {out}: {path} exists, and u2pl did not write it; choose another folder, or add --overwrite"
            )


def _refuse_renumbering(out: Path, targets: Mapping[str, Found], names: Sequence[str], *, listed: bool) -> None:
    """Raise InputError if masks that stay there would get other classes, or an image would have two masks.

    ``listed``: a person says which number is which class.
    """
    folder, known = out / "masks", out / "classes.txt"
    there = [] if not folder.is_dir() else files_below(folder, lambda path: path.suffix.lower() in MASK_SUFFIXES)[0]
    stems = {path: path.relative_to(folder).with_suffix("").as_posix() for path in there}
    if twin := next((path for path in there if stems[path] in targets and path.suffix != ".png"), None):
        raise InputError(f"--out {out}: {twin} is another mask of an image that would get one; move it away")
    staying = next((path for path in there if stems[path] not in targets), None)
    if staying is None:
        return
    if not known.is_file():
        if not listed:
            raise InputError(
                f"--out {out}: {staying} is there, and no classes.txt says which number is which class; add --classes"
            )
    elif (before := _listed(known)) != tuple(names[: len(before)]):
        raise InputError(
            f"--out {out}: {staying} has the classes of {known}, which would get other numbers; choose another folder"
        )


def _drawn(image: Found, numbers: Mapping[str, int], fill: int, path: Path | None) -> Mask:
    size = image.size
    actual = None if path is None else stored(path).size  # as viewers show it
    if size is None and actual is None:
        raise InputError(f"the annotations do not say how large {image.file} is; add --images with its folder")
    if size is not None and actual is not None and size != actual:
        raise InputError(
            f"the annotations of {image.file} are for {size[1]}x{size[0]} but the image is {actual[1]}x{actual[0]} "
            "(width x height); annotate the image anew, or restore it"
        )
    return image.draw(size or actual or (0, 0), numbers, fill)

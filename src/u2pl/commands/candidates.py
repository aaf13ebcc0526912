"""Images that could be labeled next, and those that are labeled already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from u2pl.build import build_source
from u2pl.build.trained import WEIGHTS_SUFFIX
from u2pl.config.overrides import load_saved
from u2pl.config.schema import Config
from u2pl.data.files import FileSample
from u2pl.data.image_files import ImageReader
from u2pl.data.source import DataSource
from u2pl.data.splits import IMAGE_SUFFIXES, is_image
from u2pl.data.walking import files_below, skipped_notes
from u2pl.errors import InputError
from u2pl.paths import is_file, is_inside

_CENTRES = 256  # labeled images that suggestions should differ from; of more, evenly spread ones


@dataclass(frozen=True)
class Candidates:
    """Images by the role that they have in a ranking. All are read at their full size."""

    unlabeled: list[FileSample]
    labeled: list[FileSample]  #: with which the unlabeled ones are compared; empty if they are unknown
    tag_names: dict[str, str]  #: what a csv for `data.tags` calls an image, by its name


def config_of(run: Path) -> Config | None:
    """The configuration of a run folder; None for a file of weights. Raises InputError for another folder."""
    if run.suffix == WEIGHTS_SUFFIX:
        return None
    saved = run / "config.yaml"
    if not is_file(saved):
        raise InputError(
            f"{run} is no run folder: config.yaml is missing; give one made by `u2pl train`, or its {WEIGHTS_SUFFIX} "
            "file with --images"
        )
    return load_saved(saved)


def candidates(
    run: Path,
    config: Config | None,
    images: Path | None,
    out: Path,
    *,
    classes: tuple[str, ...],
    reader: ImageReader,
    say: Callable[[str], None],
) -> Candidates:
    """The images in the folder ``images``, or those of the run's data, without those that have a label there.

    Labels are those that the run trained on or was validated with. Images in ``out``, and the masks of the run's data,
    are no candidates. Raises InputError if no unlabeled image is there, or two have the same name in one folder.
    """
    source = _source_of(run, config, needed=images is None, say=say)
    known = [] if source is None else [*source.labeled, *source.val]
    labels = [sample for each in known if (sample := _file_of(each)) is not None]
    if images is None:
        assert source is not None
        found = [replace(sample, name=each.name) for each in source.unlabeled if (sample := _file_of(each)) is not None]
        if source.unlabeled and not found:
            raise InputError(f"{run}: the images of its data are drawn by u2pl, no files; give --images DIR")
        where = f"{run}: its data have"
    else:
        found = _in_folder(images, out, len(classes), reader, say)
        where = f"--images {images}: holds"
    taken = {path.resolve() for sample in labels for path in (sample.image_path, sample.mask_path) if path is not None}
    left = [sample for sample in found if sample.image_path.resolve() not in taken]
    if len(left) < len(found):
        say(f"{len(found) - len(left)} of {len(found)} images are labeled already, or are masks: they are left out")
    if not left:
        raise InputError(f"{where} no unlabeled image to suggest from; add images without masks")
    trained_on = [sample for each in (source.labeled if source else ()) if (sample := _file_of(each)) is not None]
    return Candidates(
        unlabeled=sorted(map(_plain, left), key=lambda sample: sample.name),
        labeled=[_plain(sample) for sample in trained_on[:: max(1, -(-len(trained_on) // _CENTRES))]],
        tag_names={each.name: each.name if images is None else _relative(each, images) for each in left},
    )


def _source_of(run: Path, config: Config | None, *, needed: bool, say: Callable[[str], None]) -> DataSource | None:
    """The data of a run. None, with a note, if they are not ``needed`` and not there."""
    if config is None:
        if needed:
            raise InputError(f"{run}: a file of weights names no images; give --images DIR")
        say(f"{run} does not say which images are labeled: none is left out")
        return None
    try:
        return build_source(config.data.model_copy(update={"pseudo_masks": None, "cache": False}), seed=config.seed)
    except InputError as error:
        if needed:
            raise
        say(f"the data of {run} cannot be read ({error}): no labeled image is left out")
        return None


def _file_of(sample: Any) -> FileSample | None:
    """The image file behind a sample, if it has one."""
    while not isinstance(sample, FileSample):
        sample = getattr(sample, "sample", None)
        if sample is None:
            return None
    return sample


def _plain(sample: FileSample) -> FileSample:
    """The image of a sample as it is stored: at its full size, without a mask."""
    return FileSample(sample.name, sample.image_path, None, sample.num_classes, reader=sample.reader)


def _relative(sample: FileSample, folder: Path) -> str:
    return sample.image_path.relative_to(folder).as_posix()


def _in_folder(
    folder: Path, out: Path, num_classes: int, reader: ImageReader, say: Callable[[str], None]
) -> list[FileSample]:
    """The images in a folder and its subfolders, but for those in ``out``. Their names are relative, without suffix."""
    if not folder.exists():
        raise InputError(f"--images {folder}: is missing; give a folder of images")
    if not folder.is_dir():
        raise InputError(f"--images {folder}: is a file; give a folder of images")
    paths, skipped = files_below(folder, is_image)
    for note in skipped_notes(skipped, is_image):
        say(note)
    paths = [path for path in paths if not is_inside(path, out)]
    if not paths:
        raise InputError(f"--images {folder}: holds no image (known: {', '.join(IMAGE_SUFFIXES)})")
    found: dict[str, FileSample] = {}
    for path in paths:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            twin = found[name].image_path.name
            raise InputError(f"{path} and {twin} have the same name without the suffix; rename one")
        found[name] = FileSample(name, path, None, num_classes, reader=reader)
    return list(found.values())

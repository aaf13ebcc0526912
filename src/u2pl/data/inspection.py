"""Read a whole data set before training, and report its contents and all its problems."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from u2pl.data.source import DataSource, HasHeader, HasNotes, Sample
from u2pl.data.structure import structure_errors, structure_warnings
from u2pl.errors import InputError
from u2pl.structures import IGNORE_INDEX

Progress = Callable[[int, int], None]
_FILE = re.compile(r"\b(mask|image|mask of|its image) \S+|\(\d+ pixels?\)|\d+")
_SHOWN = 3  # errors of one kind that are printed


@dataclass(frozen=True)
class Masks:
    """What masks show."""

    number: int
    shares: dict[str, float]  #: share of each class among the pixels that are not ignored
    images: dict[str, int]  #: images that show each class
    ignored: float  #: share of ignored pixels


@dataclass(frozen=True)
class Inspection:
    """The contents of a data set, and its problems."""

    labeled: int  #: number of samples; with labels of two domains, of the source: see :attr:`target`
    unlabeled: int
    val: int
    smallest: tuple[int, int] | None  #: (H, W) of the image with the fewest pixels; None if no image can be read
    largest: tuple[int, int] | None  #: (H, W) of the image with the most pixels
    labeled_shares: dict[str, float]  #: share of each class among the labeled masks' pixels that are not ignored
    val_shares: dict[str, float]  #: the same for the validation masks
    labeled_images: dict[str, int]  #: labeled images that show each class
    val_images: dict[str, int]  #: the same for the validation images
    labeled_ignored: float  #: share of ignored pixels in the labeled masks
    val_ignored: float  #: the same for the validation masks
    absent: tuple[str, ...]  #: classes without a pixel in the labeled masks, of either domain
    target: Masks | None = None  #: labeled samples of the target, if the source has labels, too
    tagged: dict[str, int] = field(default_factory=dict)  #: unlabeled images tagged with each class; empty: no tags
    sizes: dict[str, tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=dict)
    """(H, W) of the smallest and the largest of the labeled, target, unlabeled and val images that can be read."""
    errors: tuple[str, ...] = ()  #: problems that make the data set unusable, one line each
    warnings: tuple[str, ...] = ()  #: other problems, one line each
    facts: tuple[str, ...] = ()  #: what was done that is no problem, one line each

    @property
    def problems(self) -> list[str]:
        """Errors, then warnings."""
        return [*self.errors, *self.warnings]


class _Reading(NamedTuple):
    """The result of reading one sample."""

    kind: str
    size: tuple[int, int] | None
    counts: npt.NDArray[np.int64] | None  # pixels per mask value
    errors: list[str]
    warnings: list[str]


@dataclass
class _Tally:
    """Totals over all readings."""

    sizes: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    counts: dict[str, npt.NDArray[np.int64]] = field(default_factory=lambda: _none_of(("labeled", "target", "val")))
    images: dict[str, npt.NDArray[np.int64]] = field(default_factory=lambda: _none_of(("labeled", "target", "val")))
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, reading: _Reading) -> None:
        if reading.size is not None:
            self.sizes.setdefault(reading.kind, set()).add(reading.size)
        if reading.counts is not None:
            self.counts[reading.kind] += reading.counts
            self.images[reading.kind] += reading.counts > 0
        self.errors += reading.errors
        self.warnings += reading.warnings


def inspect(
    source: DataSource, *, semi_supervised: bool, weak: bool = False, progress: Progress | None = None
) -> Inspection:
    """Decode every image and mask that training or evaluation would read, and collect all problems.

    ``weak``: the method learns from image-level tags and needs no mask. ``progress`` is called with (samples done,
    samples in total). Never raises InputError.
    """
    tally = _Tally(errors=structure_errors(source, semi_supervised, weak=weak), warnings=structure_warnings(source))
    for reading in _readings(source, thorough=True, progress=progress):
        tally.add(reading)
    return _told(tally, source, weak=weak)


def verify(
    source: DataSource,
    *,
    semi_supervised: bool,
    thorough: bool,
    weak: bool = False,
    progress: Progress | None = None,
) -> Inspection:
    """Like :func:`inspect`, but raises InputError at the first error.

    ``thorough`` decodes everything. Otherwise all masks are decoded, but only the headers of images are read. Without
    this check, a wrong validation mask would stop days of training at the first evaluation.
    """
    for error in structure_errors(source, semi_supervised, weak=weak):
        raise InputError(error)
    tally = _Tally(warnings=structure_warnings(source))
    for reading in _readings(source, thorough=thorough, progress=progress):
        for error in reading.errors:
            raise InputError(error)
        tally.add(reading)
    told = _told(tally, source, weak=weak)
    for error in told.errors:
        raise InputError(error)
    return told


def _told(tally: _Tally, source: DataSource, *, weak: bool) -> Inspection:
    """Summarise the readings."""
    classes, counts, images, own = source.classes, tally.counts, tally.images, source.target_labeled
    counted = counts["labeled"] + counts["target"]
    readable = source.labeled and not any("mask" in error for error in tally.errors)
    absent = tuple(name for index, name in enumerate(classes) if counted[index] == 0) if readable else ()
    if absent and source.few_classes:
        tally.warnings.append(
            f"{len(absent)} of {len(classes)} classes are in no labeled mask ({', '.join(absent[:_SHOWN])}"
            f"{', ...' if len(absent) > _SHOWN else ''}); {source.few_classes}"
        )
    else:
        tally.warnings += [f"class {name!r} is in no labeled mask; label an image that shows it" for name in absent]
    tagged = _count_tags(source) if weak else {}
    tally.warnings += [f"no image is tagged with {name!r}; tag one" for name, count in tagged.items() if count == 0]
    sizes = {kind: _extremes(each) for kind, each in tally.sizes.items()}
    smallest, largest = _extremes({size for pair in sizes.values() for size in pair}) if sizes else (None, None)
    return Inspection(
        labeled=len(source.labeled) - own,
        unlabeled=len(source.unlabeled),
        val=len(source.val),
        smallest=smallest,
        largest=largest,
        labeled_shares=_shares(counts["labeled"], classes),
        val_shares=_shares(counts["val"], classes),
        labeled_images=_images(images["labeled"], classes),
        val_images=_images(images["val"], classes),
        labeled_ignored=_ignored(counts["labeled"]),
        val_ignored=_ignored(counts["val"]),
        absent=absent,
        target=_masks(own, counts["target"], images["target"], classes) if own else None,
        tagged=tagged,
        sizes=sizes,
        errors=tuple(_summed(tally.errors)),
        warnings=tuple(_summed(tally.warnings)),
        facts=source.facts,
    )


def _summed(problems: Sequence[str]) -> list[str]:
    """Problems without repetition; of many that differ only in their files, the first and how many more there are."""
    alike: dict[str, list[str]] = {}
    for problem in dict.fromkeys(problems):
        alike.setdefault(_FILE.sub("...", problem), []).append(problem)
    lines = []
    for group in alike.values():
        shown = group if len(group) <= _SHOWN else group[:1]
        lines += shown
        if len(group) > len(shown):
            lines.append(f"{len(group) - 1} more files: the same")
    return lines


def _readings(source: DataSource, *, thorough: bool, progress: Progress | None) -> Iterator[_Reading]:
    first = len(source.labeled) - source.target_labeled
    lists: dict[str, Sequence[Sample]] = {"labeled": source.labeled[:first], "target": source.labeled[first:]}
    lists |= {"val": source.val, "unlabeled": source.unlabeled}
    jobs = [(kind, sample) for kind, samples in lists.items() for sample in samples]
    workers = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as threads:
        # Submit the jobs in chunks, so that an early error does not wait for the whole data set.
        for first in range(0, len(jobs), 16 * workers):
            piece = jobs[first : first + 16 * workers]
            for index, reading in enumerate(threads.map(lambda job: _read(*job, thorough=thorough), piece)):
                if progress is not None:
                    progress(first + index + 1, len(jobs))
                yield reading


def _read(kind: str, sample: Sample, *, thorough: bool) -> _Reading:
    errors: list[str] = []
    warnings: list[str] = []
    size, counts = None, None
    try:
        size = _size(sample, thorough)
    except InputError as error:
        errors.append(str(error))
    if kind != "unlabeled":
        try:
            mask = sample.mask()
            warnings += sample.notes() if isinstance(sample, HasNotes) else ()
            if size is not None and tuple(mask.shape) != size:
                errors.append(
                    f"mask of {sample.name} is {tuple(mask.shape)} but its image is {size}; give both one size"
                )
            counts = torch.bincount(mask.flatten(), minlength=256).numpy()
            if counts[:IGNORE_INDEX].sum() == 0:
                warnings.append(
                    f"mask of {sample.name} ({kind}) is ignored ({IGNORE_INDEX}) everywhere; it has no effect"
                )
        except InputError as error:
            errors.append(str(error))
    return _Reading(kind, size, counts, errors, warnings)


def _extremes(sizes: set[tuple[int, int]]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The sizes with the fewest and with the most pixels."""
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return ordered[0], ordered[-1]


def _size(sample: Sample, thorough: bool) -> tuple[int, int]:
    """(H, W), read from the header only if the sample supports it and ``thorough`` is not set."""
    if not thorough and isinstance(sample, HasHeader):
        return sample.image_size()
    height, width = sample.image().shape[-2:]
    return height, width


def _count_tags(source: DataSource) -> dict[str, int]:
    """Number of images tagged with each class, except the first, the background."""
    tags = [sample.tags for sample in source.unlabeled if sample.tags is not None]
    return {name: sum(index in each for each in tags) for index, name in enumerate(source.classes) if index > 0}


def _none_of(kinds: Sequence[str]) -> dict[str, npt.NDArray[np.int64]]:
    return {kind: np.zeros(256, dtype=np.int64) for kind in kinds}


def _masks(number: int, counts: npt.NDArray[np.int64], images: npt.NDArray[np.int64], classes: Sequence[str]) -> Masks:
    return Masks(number, _shares(counts, classes), _images(images, classes), _ignored(counts))


def _images(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> dict[str, int]:
    return {name: int(counts[index]) for index, name in enumerate(classes)}


def _ignored(counts: npt.NDArray[np.int64]) -> float:
    return int(counts[IGNORE_INDEX]) / max(1, int(counts.sum()))


def _shares(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> dict[str, float]:
    total = max(1, int(counts[: len(classes)].sum()))
    return {name: int(counts[index]) / total for index, name in enumerate(classes)}

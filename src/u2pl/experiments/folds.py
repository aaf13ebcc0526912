"""Folds of the labeled images: each image is validated on once, by models that have not seen its mask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from u2pl.data.rare_classes import pixel_counts
from u2pl.data.source import Sample
from u2pl.data.splits import draw_labeled, fingerprint
from u2pl.data.validation import runs
from u2pl.engine.checkpoint import write_text_atomically
from u2pl.errors import InputError


@dataclass(frozen=True)
class Fold:
    """Names of images: half of the labeled ones is a part of them."""

    labeled: tuple[str, ...]
    half: tuple[str, ...]
    val: tuple[str, ...]


def folds_of(
    presence: Mapping[str, frozenset[int]], number: int, *, seed: int, groups: Mapping[str, str] | None = None
) -> list[Fold]:
    """Divide labeled images into folds of about equal size. Runs of frames, or groups, stay in one fold.

    The half of a fold's labels shows as many classes as it can. The folds depend on the seed and the names only.

    Args:
        presence: classes that each labeled image shows, by its name.
        groups: the group of each name; None: :func:`u2pl.data.validation.runs`.

    Raises InputError if there are fewer images or groups than folds, or too few labels to halve.
    """
    if number < 2:
        raise InputError(f"--folds {number}: give at least 2")
    groups = runs(presence, max(1, len(presence) // number)) if groups is None else groups
    members: dict[str, list[str]] = defaultdict(list)
    for name in sorted(presence):
        members[groups[name]].append(name)
    if len(presence) < number or len(members) < number:
        what = f"{len(presence)} labeled images" if len(presence) < number else f"{len(members)} groups of images"
        raise InputError(f"--folds {number}: there are {what}; label more images or lower it")
    parts: list[list[str]] = [[] for _ in range(number)]
    for group in sorted(members, key=lambda group: (-len(members[group]), fingerprint(seed, group))):
        min(parts, key=len).extend(members[group])
    folds = []
    for part in parts:
        rest = {name: shown for name, shown in presence.items() if name not in set(part)}
        half = draw_labeled(rest, max(1, len(rest) // 2), seed)
        folds.append(Fold(tuple(sorted(rest)), tuple(half), tuple(sorted(part))))
    return folds


def classes_shown(samples: Sequence[Sample], classes: int) -> dict[str, frozenset[int]]:
    """The classes that the mask of each labeled image shows, by its name."""
    counts = pixel_counts(samples)[:, :classes]
    return {sample.name: frozenset(np.flatnonzero(row).tolist()) for sample, row in zip(samples, counts, strict=True)}


def write_folds(folds: Sequence[Fold], out: Path) -> list[dict[str, Path]]:
    """Write the split files of each fold below ``out``: `labeled`, `half` and `val`, by name.

    Raises InputError if they cannot be written.
    """
    files = []
    for number, fold in enumerate(folds, start=1):
        folder = out / "folds" / str(number)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {out}: cannot write there ({error.strerror})") from error
        paths = {name: folder / f"{name}.txt" for name in ("labeled", "half", "val")}
        for name, path in paths.items():
            write_text_atomically(path, "".join(f"{each}\n" for each in getattr(fold, name)))
        files.append(paths)
    return files

"""Draw validation images from labeled ones: seeded, covering the classes, and with neighbouring frames on one side."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from u2pl.data.splits import fingerprint, some
from u2pl.data.text import read_rows
from u2pl.errors import InputError

SHARE, LEAST, ENOUGH = 0.2, 4, 12  #: of the labels, by default; at least so many; with fewer labels, none
_RUNS = 4  # a sequence of frames is divided so that about so many runs are held out
_NUMBER = re.compile(r"(\d+)(?!.*\d)")  # the last number of a name: that of a frame


def number_of(share: float, available: int) -> int:
    """How many of the labeled images a share or a count is. Raises InputError unless some stay on each side."""
    if isinstance(share, float) and not 0 < share < 1:
        raise InputError(f"val: the share {share} is not between 0 and 1; use an integer for a count")
    count = max(1, round(share * available)) if isinstance(share, float) else share
    if not 1 <= count < available:
        raise InputError(
            f"val: {count} of {available} labeled images would be for validation; ask for 1 to {available - 1}"
        )
    return count


def draw_validation(
    presence: Mapping[str, frozenset[int]],
    count: int,
    classes: Sequence[str] = (),
    *,
    seed: int,
    groups: Mapping[str, str] | None = None,
) -> list[str]:
    """About ``count`` names, in whole groups, sorted. They show as many classes as they can.

    A group is not drawn if a class would have no label outside of it and those drawn before. The draw depends on the
    seed and the names, but not on their order.

    Args:
        presence: classes that each labeled image shows, by its name.
        classes: their names, for the error.
        groups: the group of each name; None: :func:`runs`.

    Raises InputError if every group holds the only label of a class, or if there is one group only.
    """
    groups = runs(presence, count) if groups is None else groups
    members: dict[str, list[str]] = defaultdict(list)
    for name in sorted(presence):
        members[groups[name]].append(name)
    order = sorted(members, key=lambda group: fingerprint(seed, group))
    sizes = np.array([len(members[group]) for group in order])
    labels = _labels([members[group] for group in order], presence)  # (groups, classes) images that show them
    left = labels.sum(axis=0)
    drawn: list[str] = []
    covered = np.zeros(len(left), dtype=bool)
    waiting = np.ones(len(order), dtype=bool)
    while len(drawn) < count:
        # Each class keeps a label on the other side.
        fitting = waiting & ((labels == 0) | (labels < left)).all(axis=1)
        small = fitting & (len(drawn) + sizes <= count)
        small = small if small.any() else fitting
        if not small.any() or (drawn and len(drawn) + sizes[small].min() > 1.5 * count):
            break
        new = ((labels > 0) & ~covered).sum(axis=1)
        best = int(np.where(small, new, -1).argmax())
        waiting[best] = False
        drawn += members[order[best]]
        covered |= labels[best] > 0
        left -= labels[best]
    if not drawn:
        why = _unspared(presence, groups, classes) or "all labeled images are of one group"
        raise InputError(f"val: no labeled image can be spared for validation: {why}; label more, or set data.val=none")
    return sorted(drawn)


def _unspared(presence: Mapping[str, frozenset[int]], groups: Mapping[str, str], classes: Sequence[str]) -> str:
    """Which classes only one group shows, and the images that show them; "" if there is one group only."""
    holders: dict[int, set[str]] = defaultdict(set)
    for name, shown in presence.items():
        for index in shown:
            holders[index].add(groups[name])
    single = sorted(index for index, held in holders.items() if len(held) == 1)
    if len(set(groups.values())) == 1:
        return ""
    names = [classes[index] if index < len(classes) else f"class {index}" for index in single]
    images = [name for name in sorted(presence) if not presence[name].isdisjoint(single)]
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{some(images)} alone show{'s' * (len(images) == 1)} {listed}"


def runs(names: Iterable[str], count: int) -> dict[str, str]:
    """The run of each name. A sequence is cut into runs of frames that follow each other, so long that about four make
    up ``count`` images. Any other name is a run of its own."""
    length = max(1, round(count / _RUNS))
    return {
        name: f"{sequence}/{place // length}"
        for sequence, frames in sequences(names).items()
        for place, name in enumerate(frames)
    }


def sequences(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by their sequence, in the order of the frames.

    Frames of a sequence have names that differ in their last number only: `0001TP_006690`. Any other name is a sequence
    of its own.
    """
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for name in names:
        number = _NUMBER.search(Path(name).name)
        if number is None:
            found[name].append((0, name))
        else:
            found[f"{name[: -len(Path(name).name)]}{_NUMBER.sub('#', Path(name).name)}"].append((int(number[1]), name))
    return {sequence: [name for _, name in sorted(frames)] for sequence, frames in found.items()}


def read_groups(path: Path, names: Sequence[str], *, whole: bool = True) -> dict[str, str]:
    """The group of each image, from a csv file with the header `image,group`.

    Raises InputError for an image in two groups. With ``whole``, also if the file names an image that is not there, or
    leaves one out.
    """
    give = "give a csv file with the header image,group"
    rows = read_rows(path, give=give, delimiter=lambda head: ";" if ";" in head and "," not in head else ",")
    if not rows or [cell.lower() for cell in rows[0][1]] != ["image", "group"]:
        raise InputError(f"{path}, line {rows[0][0] if rows else 1}: {give}")
    ends = Counter(Path(name).name for name in names)
    known = {
        **{Path(name).name: name for name in names if ends[Path(name).name] == 1},
        **{name: name for name in names},
    }
    groups: dict[str, str] = {}
    for line, cells in rows[1:]:
        if len(cells) != 2 or not all(cells):
            raise InputError(f"{path}, line {line}: has {len(cells)} columns; write an image and its group")
        stem = cells[0].removesuffix(PurePosixPath(cells[0]).suffix)
        name = known.get(cells[0]) or known.get(PurePosixPath(stem).as_posix())
        if name is None and not whole:
            continue
        if name is None and ends[PurePosixPath(stem).name] > 1:
            raise InputError(f"{path}, line {line}: {cells[0]} may be several images; write it with its folder")
        if name is None:
            raise InputError(f"{path}, line {line}: there is no labeled image {cells[0]}; take it off or add its mask")
        if groups.setdefault(name, cells[1]) != cells[1]:
            raise InputError(f"{path}, line {line}: {cells[0]} is already in group {groups[name]}; take one line off")
    if whole and (missing := [name for name in names if name not in groups]):
        raise InputError(f"{path}: {some(missing)} without a group; add a line for each labeled image")
    return groups


def _labels(groups: Sequence[Sequence[str]], presence: Mapping[str, frozenset[int]]) -> npt.NDArray[np.int64]:
    """(groups, classes): how many images of each group show each class."""
    known = sorted(frozenset().union(*presence.values()))
    column = {index: place for place, index in enumerate(known)}
    labels = np.zeros((len(groups), len(known)), dtype=np.int64)
    for row, names in zip(labels, groups, strict=True):
        for name in names:
            row[[column[index] for index in presence[name]]] += 1
    return labels

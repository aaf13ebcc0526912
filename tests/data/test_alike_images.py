"""Which images are alike: groups of a file, or runs of neighbouring frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from u2pl.data.alike import alike, neighbours
from u2pl.data.readers.domain import domain
from u2pl.data.readers.folder import folder


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        ([f"clip_{n}" for n in range(120)], [10] * 12),
        ([f"{clip}/{n}.x" for clip in "abcde" for n in range(40)], [20] * 10),  # whole halves of clips
        ([f"{clip}/{n}" for clip in "abcdefghijklmnopqrst" for n in range(5)], [5] * 20),  # whole clips
        ([f"IMG_{n}" for n in range(17)], [1] * 17),
        (["street", "yard", *(f"clip_{n}" for n in range(22))], [1, 1, *[2] * 11]),
    ],
)
def test_a_sequence_is_cut_into_runs_of_about_equal_length(names: list[str], sizes: list[int]) -> None:
    found = neighbours(reversed(names))
    assert list(Counter(found[name] for name in names).values()) == sizes
    order = [found[name] for name in names]
    assert sum(run != after for run, after in pairwise(order)) == len(sizes) - 1


def test_frames_follow_each_other_by_their_numbers() -> None:
    found = neighbours([f"{n}" for n in range(24)])
    assert found["8"] == found["9"] != found["10"] == found["11"]


def test_a_file_decides_and_who_is_not_in_it_is_alone() -> None:
    names = [f"clip_{n}" for n in range(24)]
    assert alike(names, {"clip_0": "a", "clip_2": "a", "clip_1": "clip_3", "other": "b"}) == (0, 1, 0, *range(2, 23))
    assert alike(names, {"other": "b"}) == alike(names) == tuple(n // 2 for n in range(24))
    assert alike([]) == ()


def test_the_validation_images_of_a_folder_have_groups(write_folder: Callable[..., Path]) -> None:
    shown = {f"train/{name}": (0, 1, 2) for name in ("a", "b")} | {f"val/f{n}": (0, 1) for n in range(18)}
    root = write_folder(shown)
    source = folder(root=root, val="val")
    assert len(set(source.val_groups)) == 9
    assert domain(source=source, target=source, upper_bound=True).val_groups == source.val_groups
    assert folder(root=root).val_groups == ()
    (root / "groups.csv").write_text("image,group\n" + "".join(f"f{n},{n % 3}\nnobody{n},4\n" for n in range(18)))
    numbers = folder(root=root, val="val", groups="groups.csv").val_groups
    by_name = dict(zip((each.name for each in source.val), numbers, strict=True))
    assert len(set(by_name.values())) == 3
    assert by_name["val/f1"] == by_name["val/f4"] != by_name["val/f2"]
    (root / "groups.csv").write_text("image,group\n" + "".join(f"{name},{name[-1]}\n" for name in shown))
    drawn = folder(root=root, val=8, groups="groups.csv")
    ends = [each.name[-1] for each in drawn.val]
    assert len(set(drawn.val_groups)) == len(set(ends)) < len(ends)

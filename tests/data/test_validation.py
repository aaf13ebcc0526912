"""Validation images drawn from the labeled ones: classes, video frames, groups, and what cannot be drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from u2pl.data.readers.folder import folder
from u2pl.data.source import DataSource
from u2pl.data.splits import fingerprint
from u2pl.data.structure import structure_warnings
from u2pl.data.validation import draw_validation, number_of, read_groups, runs
from u2pl.errors import InputError

Folder = Callable[..., Path]


def presence(count: int, classes: int = 3) -> dict[str, frozenset[int]]:
    return {f"photo{chr(97 + n // 26)}{chr(97 + n % 26)}": frozenset({0, n % classes}) for n in range(count)}


@pytest.mark.parametrize("seed", range(5))
def test_a_draw_shows_every_class_and_leaves_every_class_labels(seed: int) -> None:
    known = presence(40, classes=6)
    drawn = draw_validation(known, 8, seed=seed)
    assert len(drawn) == 8
    assert drawn == sorted(set(drawn))
    rest = set(known) - set(drawn)
    for side in (drawn, rest):
        assert set().union(*(known[name] for name in side)) == set(range(6))
    backwards = dict(reversed(known.items()))
    assert draw_validation(backwards, 8, seed=seed) == drawn
    assert draw_validation(known, 8, seed=seed + 100) != drawn


def test_the_only_label_of_a_class_stays() -> None:
    known = {**presence(10), "rare": frozenset({0, 7})}
    assert all("rare" not in draw_validation(known, 4, seed=seed) for seed in range(20))
    one_each = {name: frozenset({number}) for number, name in enumerate("abcd")}
    images = r"4 images \(a, b, c, \.\.\.\)"
    with pytest.raises(InputError, match=rf"^val: no labeled image can be spared .* {images} alone show cat, dog, "):
        draw_validation(one_each, 1, ["cat", "dog"], seed=0)
    pairs = {name: frozenset({number // 2}) for number, name in enumerate("abcd")}
    with pytest.raises(InputError, match=r"4 images .* alone show cat, dog;"):
        draw_validation(pairs, 1, ["cat", "dog"], seed=0, groups={"a": "1", "b": "1", "c": "2", "d": "2"})


def drawn_by_loops(known: dict[str, frozenset[int]], count: int, groups: dict[str, str], seed: int) -> list[str]:
    """Group by group: of those that fit and leave labels, the first with the most classes that are new."""
    waiting = sorted(set(groups.values()), key=lambda group: fingerprint(seed, group))
    drawn: list[str] = []
    while len(drawn) < count:
        best, most, least = None, -1, 0
        for within in (True, False):
            for group in waiting:
                members = [name for name in known if groups[name] == group]
                rest = [known[name] for name in known if name not in drawn and name not in members]
                here = frozenset().union(*(known[name] for name in members))
                if not here <= frozenset().union(*rest) or (within and len(drawn) + len(members) > count):
                    continue
                least = min(least or len(members), len(members))
                new = len(here - frozenset().union(*(known[name] for name in drawn)))
                if new > most:
                    best, most = group, new
            if best is not None:
                break
        if best is None or (drawn and len(drawn) + least > 1.5 * count):
            break
        waiting.remove(best)
        drawn += [name for name in known if groups[name] == best]
    return sorted(drawn)


@settings(max_examples=80, deadline=None)
@given(
    shown=st.lists(st.frozensets(st.integers(0, 6), max_size=4), min_size=2, max_size=14),
    count=st.integers(1, 8),
    groups=st.integers(1, 14),
    seed=st.integers(0, 3),
)
def test_a_draw_is_that_of_loops(shown: list[frozenset[int]], count: int, groups: int, seed: int) -> None:
    known = {f"image{chr(97 + n)}": classes for n, classes in enumerate(shown)}
    of = {name: f"group {n % groups}" for n, name in enumerate(known)}
    wanted = drawn_by_loops(known, count, of, seed)
    if wanted:
        assert draw_validation(known, count, seed=seed, groups=of) == wanted
    else:
        with pytest.raises(InputError, match="no labeled image can be spared"):
            draw_validation(known, count, seed=seed, groups=of)


def test_a_draw_from_many_images_is_quick() -> None:
    known = {f"{chr(97 + n % 26)}{n}x{chr(97 + n % 7)}": frozenset(range(n % 20, n % 20 + 8)) for n in range(2000)}
    groups = {name: name for name in known}
    began = perf_counter()
    assert len(draw_validation(known, 400, seed=0, groups=groups)) == 400
    assert perf_counter() - began < 10


def test_names_that_are_in_several_folders_need_them(tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    file.write_text("image,group\na/x.png,1\nb/x,2\ny,3\n")
    assert read_groups(file, ["a/x", "b/x", "c/y"]) == {"a/x": "1", "b/x": "2", "c/y": "3"}
    for cell in ("x", "x.png"):
        file.write_text(f"image,group\n{cell},1\n")
        with pytest.raises(InputError, match=f"line 2: {cell} may be several images; write it with its folder"):
            read_groups(file, ["a/x", "b/x"])
    for cell in (".", "/", "..", "a/"):
        file.write_text(f"image,group\n{cell},1\n")
        with pytest.raises(InputError, match="line 2: there is no labeled image"):
            read_groups(file, ["a/x", "b/x"])


@pytest.mark.parametrize("share", [float("nan"), float("inf"), -float("inf"), 0.0, 1.0, -0.5])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(InputError, match="is not between 0 and 1; use an integer for a count"):
        number_of(share, 10)


def frames(count: int) -> dict[str, frozenset[int]]:
    return {f"day/0001TP_{6690 + 30 * number:06}": frozenset({0, 1}) for number in range(count)}


def test_frames_that_follow_each_other_stay_together() -> None:
    known = {**frames(50), "night/other": frozenset({0, 1})}
    drawn = draw_validation(known, 10, seed=3)
    order = sorted(frames(50))
    places = [order.index(name) for name in drawn if name in order]
    borders = sum(place + 1 not in places for place in places)
    assert 8 <= len(drawn) <= 15
    assert borders <= 5  # runs of two or three frames, where single frames would have ten borders
    of = runs(known, 10)
    assert of["night/other"] != of[order[0]]
    assert of[order[0]] == of[order[1]] == of[order[1]]
    assert len({of[name] for name in order}) == 25


def test_names_whose_last_numbers_differ_in_length_are_ordered_as_numbers() -> None:
    names = [f"frame{number}" for number in (1, 2, 3, 10, 11, 12, 100, 101)]
    of = runs(reversed(names), 8)
    assert of["frame1"] == of["frame2"] != of["frame3"] == of["frame10"]


def test_groups_stay_whole(tmp_path: Path) -> None:
    known = presence(20, classes=2)
    groups = {name: f"person {number // 4}" for number, name in enumerate(known)}
    drawn = draw_validation(known, 5, seed=0, groups=groups)
    assert len(drawn) == 4
    assert len({groups[name] for name in drawn}) == 1
    with pytest.raises(InputError, match=r"all labeled images are of one group|alone show"):
        draw_validation(known, 5, seed=0, groups=dict.fromkeys(known, "one"))
    file = tmp_path / "groups.csv"
    file.write_text("image,group\n" + "".join(f"{name}.jpg,{group}\n" for name, group in groups.items()))
    assert read_groups(file, list(known)) == groups


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "give a csv file with the header image,group"),
        ("picture,person\na,b\n", "line 1: give a csv file with the header image,group"),
        ("image,group\na,1\nz,1\n", "line 3: there is no labeled image z"),
        ("image,group\na\n", "line 2: has 1 columns"),
        ("image,group\na,1\na,2\n", "line 3: a is already in group 1"),
        ("image,group\na,1\n", r"1 image \(b\) without a group"),
    ],
)
def test_bad_groups_are_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(InputError, match=says) as error:
        read_groups(tmp_path / "groups.csv", ["a", "b"])
    assert "groups.csv" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("share", "count"), [(0.2, 10), (0.01, 1), (7, 7), (1, 1), (49, 49)])
def test_shares_and_counts(share: float, count: int) -> None:
    assert number_of(share, 50) == count


@pytest.mark.parametrize("share", [0.0, 1.0, 1.5, -0.1, 0, 50, 51, 0.999])
def test_nothing_or_everything_for_validation_is_refused(share: float) -> None:
    with pytest.raises(InputError, match=r"^val: "):
        number_of(share, 50)


def read(root: Path, **keys: object) -> DataSource:
    return folder(root=root, **keys)  # type: ignore[arg-type]


def names(source: DataSource) -> tuple[set[str], set[str], set[str]]:
    return tuple({sample.name for sample in part} for part in (source.labeled, source.unlabeled, source.val))  # type: ignore[return-value]


@pytest.fixture
def twenty(write_folder: Folder) -> Path:
    """Twenty labeled images, three without a mask."""
    shown = {f"{chr(97 + n)}x": (0, 1 + n % 2) for n in range(20)}
    return write_folder({**shown, "u": None, "v": None, "w": None})


@pytest.mark.parametrize(("val", "count"), [("auto", 4), ("0.25", 5), (0.25, 5), ("6", 6), (6, 6)])
def test_a_folder_draws_and_says_so(twenty: Path, val: str | float, count: int) -> None:
    source = read(twenty, val=val, seed=1)
    labeled, unlabeled, held_out = names(source)
    assert len(held_out) == count
    assert len(labeled) == 20 - count
    assert not labeled & held_out
    assert unlabeled == {"u", "v", "w"}
    (fact,) = source.facts
    assert fact.startswith(f"val: {count} of 20 labeled images are drawn")
    assert source.notes == ()  # it is no problem
    assert names(read(twenty, val=val, seed=1)) == names(source)


@pytest.mark.parametrize("val", [None, "none"])
def test_a_folder_without_validation(twenty: Path, val: str | None) -> None:
    source = read(twenty, val=val)
    assert (len(source.labeled), len(source.val), source.notes) == (20, 0, ())


def test_the_draw_does_not_depend_on_how_many_labels_train(twenty: Path, tmp_path: Path) -> None:
    every = read(twenty, val="auto", seed=2)
    few = read(twenty, val="auto", seed=2, labeled=5)
    assert names(few)[2] == names(every)[2]
    assert len(few.labeled) == 5
    listed = tmp_path / "labeled.txt"
    listed.write_text("\n".join(sample.name for sample in every.labeled[:8]))
    source = read(twenty, val="auto", seed=2, labeled=listed)
    assert len(source.labeled) == 8
    assert not names(source)[2] & names(source)[0]
    listed.write_text("\n".join(f"{chr(97 + n)}x" for n in range(20)))
    source = read(twenty, val=4, seed=2, labeled=listed)  # all masks are listed, so some of them are held out
    assert (len(source.labeled), len(source.val)) == (16, 4)


def test_few_labels_and_a_folder_val(write_folder: Folder) -> None:
    root = write_folder({**dict.fromkeys("abcdefghijk", (0, 1, 2)), "val/x": None})
    source = read(root, val="auto")
    assert (len(source.labeled), len(source.val)) == (11, 0)
    (note,) = (note for note in structure_warnings(source) if "no score will be known" in note)
    assert "11 labeled images are too few to hold some out" in note


def test_a_folder_of_which_nothing_can_be_spared(write_folder: Folder) -> None:
    root = write_folder({f"{chr(97 + n)}x": (0, 1 + n) for n in range(12)})
    (root / "classes.txt").write_text("".join(f"class_{n}\n" for n in range(13)))
    source = read(root, val="auto")
    assert (len(source.labeled), len(source.val)) == (12, 0)
    assert any("alone show class_1, class_2, class_3, ...; label more" in note for note in source.notes)
    with pytest.raises(InputError, match="alone show class_1, class_2"):
        read(root, val=0.2)


def test_the_folder_val_comes_first(write_folder: Folder) -> None:
    root = write_folder({**{f"t/{name}": (0, 1, 2) for name in "abcdefghijklmno"}, "val/x": (0, 1), "0.2/y": (0, 2)})
    assert names(read(root, val="auto"))[2] == {"val/x"}
    assert names(read(root, val="0.2"))[2] == {"0.2/y"}  # a folder of this name


@pytest.mark.parametrize("val", ["nothing", "1.0", "0", "20", "99999999999999", "-3"])
def test_what_is_no_validation_is_one_line(twenty: Path, val: str) -> None:
    with pytest.raises(InputError, match=r"^val: ") as error:
        read(twenty, val=val)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"^groups: there is no file groups\.csv"):
        read(twenty, val="0.2", groups="groups.csv")

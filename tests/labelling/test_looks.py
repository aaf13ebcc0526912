"""Looks survive a kill, and are dropped where they are of something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from u2pl.errors import InputError
from u2pl.labelling.looking import Look
from u2pl.labelling.looks import LOOKS_FILES, Looks, record_of
from u2pl.labelling.ranking import BINS

ABOUT = {"weights": "w", "images": "i"}


def look(seed: int, classes: int = 3, features: int = 5) -> Look:
    draw = torch.Generator().manual_seed(seed)
    histogram = torch.rand(classes, BINS, generator=draw)
    return Look(histogram / histogram.sum(), seed / 7, torch.randn(features, generator=draw))


def same(looks: Looks, places: list[int]) -> None:
    """The looks are those of these images, in this order."""
    assert looks.places == places
    found = torch.cat(list(looks.histograms()))
    for record, place in enumerate(places):
        expected = look(place)
        assert float(looks.entropy()[record]) == pytest.approx(expected.entropy)
        assert torch.equal(looks.embedding()[record], expected.embedding)
        torch.testing.assert_close(found[record], expected.histogram, atol=1e-5, rtol=1e-3)


def test_looks_are_read_as_they_were_written(tmp_path: Path) -> None:
    looks = Looks(tmp_path, ABOUT, 9)
    assert looks.places == []
    assert not list(tmp_path.iterdir())  # nothing is written before the first
    for place in (4, 0, 7):
        looks.add(place, look(place))
    same(looks, [4, 0, 7])
    again = Looks(tmp_path, ABOUT, 9)
    same(again, [4, 0, 7])
    again.add(2, look(2))
    same(again, [4, 0, 7, 2])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(LOOKS_FILES)
    assert (tmp_path / "looks.bin").stat().st_size == 4 * record_of(3, 5).itemsize


@pytest.mark.parametrize("lost", [1, 100, 399])
def test_half_a_record_is_cut_off(tmp_path: Path, lost: int) -> None:
    looks = Looks(tmp_path, ABOUT, 9)
    for place in (1, 2, 3):
        looks.add(place, look(place))
    path = tmp_path / "looks.bin"
    path.write_bytes(path.read_bytes()[:-lost])
    again = Looks(tmp_path, ABOUT, 9)
    same(again, [1, 2])
    again.add(5, look(5))
    same(Looks(tmp_path, ABOUT, 9), [1, 2, 5])


@pytest.mark.parametrize("damage", ["other", "no json", "no size", "no list", "place", "twice", "no records"])
def test_other_looks_are_dropped(tmp_path: Path, damage: str) -> None:
    looks = Looks(tmp_path, ABOUT, 9)
    for place in (1, 8):
        looks.add(place, look(place))
    note, records = tmp_path / "looks.json", tmp_path / "looks.bin"
    about, number = dict(ABOUT), 9
    if damage == "other":
        about["weights"] = "v"
    elif damage == "no json":
        note.write_text("{")
    elif damage == "no size":
        note.write_text(json.dumps({**ABOUT, "classes": 3, "features": -1}))
    elif damage == "no list":
        note.write_text("[1, 2]")
    elif damage == "place":
        number = 8
    elif damage == "twice":
        looks.add(1, look(1))
    else:
        records.unlink()
    again = Looks(tmp_path, about, number)
    assert again.places == []
    again.add(3, look(3))
    same(again, [3])
    same(Looks(tmp_path, about, number), [3])


def test_many_records_are_read_in_parts(tmp_path: Path) -> None:
    looks = Looks(tmp_path, ABOUT, 1100)
    for place in range(1100):
        looks.add(place, look(place))
    parts = list(looks.histograms())
    assert [len(part) for part in parts] == [1024, 76]
    same(looks, list(range(1100)))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "looks.bin").mkdir()
    with pytest.raises(InputError, match=r"looks\.bin cannot be written"):
        Looks(tmp_path, ABOUT, 9).add(0, look(0))


def test_a_record_is_small() -> None:
    assert record_of(11, 1280).itemsize < 7000  # CamVid on MobileNetV2

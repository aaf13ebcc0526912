"""The images that a list of suggestions names, which `u2pl export-masks` draws."""

from __future__ import annotations

from pathlib import Path

import pytest

from u2pl.commands.suggestions import SUGGESTED, suggested_images
from u2pl.errors import InputError


def listed(folder: Path, text: str) -> list[Path]:
    (folder / SUGGESTED).write_text(text)
    return suggested_images(folder)


def test_the_images_of_a_list_in_its_order(tmp_path: Path) -> None:
    for name in ('b, "c".png', "a.png"):
        (tmp_path / name).touch()
    text = f'rank,image,score\n1,"{tmp_path}/b, ""c"".png",0.5\n2,{tmp_path}/a.png,0.1\n'
    assert listed(tmp_path, text) == [tmp_path / 'b, "c".png', tmp_path / "a.png"]
    assert listed(tmp_path, "rank,image\n") == []


def test_an_image_that_is_listed_twice_or_by_a_relative_path_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    assert listed(tmp_path, f"rank,image\n1,a.png\n2,{tmp_path}/a.png\n") == [tmp_path / "a.png"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no column image"),
        ("rank,file\n1,a.png\n", "has no column image"),
        ("rank,image\n1,gone.png\n", r"lists /\S+/gone.png, which is gone"),
    ],
)
def test_other_files_and_images_that_are_gone(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        listed(tmp_path, text)

"""Folders are searched through links, and without what programs leave behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from u2pl.data.readers.folder import folder
from u2pl.data.splits import is_image
from u2pl.data.walking import SERVICE_FOLDERS, files_below
from u2pl.errors import InputError

WriteFolder = Callable[..., Path]


def names(paths: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_linked_folders_are_followed_and_circles_are_not(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "elsewhere" / "b.png")
    write_image(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "train").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "here").symlink_to(".")
    (tmp_path / "images" / "itself").symlink_to("itself")
    (tmp_path / "images" / "nowhere.png").symlink_to("gone.png")
    found, skipped = files_below(tmp_path / "images", is_image)
    assert names(found, tmp_path / "images") == ["a.png", "train/b.png"]
    assert skipped == []


def test_a_folder_linked_twice_is_there_twice(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "one" / "a.png")
    (tmp_path / "images").mkdir()
    for name in ("x", "y"):
        (tmp_path / "images" / name).symlink_to(tmp_path / "one")
    found, _ = files_below(tmp_path / "images", is_image)
    assert names(found, tmp_path / "images") == ["x/a.png", "y/a.png"]


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".Trash-0", ".git", *sorted(SERVICE_FOLDERS)])
def test_what_programs_leave_behind_is_no_image(
    name: str, write_folder: WriteFolder, write_image: Callable[..., Path]
) -> None:
    root = write_folder({"a": (0, 1), "b": None})
    write_image(root / "images" / name / "deep" / "copy.png")
    source = folder(root=root)
    assert [sample.name for sample in (*source.labeled, *source.unlabeled)] == ["a", "b"]
    (note,) = (note for note in source.notes if "left out" in note)
    assert f"{name} is left out, with 1 image" in note


def test_an_empty_folder_of_a_program_is_not_worth_a_word(write_folder: WriteFolder) -> None:
    root = write_folder({"a": (0, 1), "b": None})
    (root / "images" / ".cache").mkdir()
    assert not [note for note in folder(root=root).notes if "left out" in note]


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs the tests may read everything, so the system's answer is made up."""

    def refuse(place: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr("os.listdir", refuse)
    with pytest.raises(InputError, match=r"folder .* cannot be read \(Permission denied\)"):
        files_below(tmp_path, is_image)

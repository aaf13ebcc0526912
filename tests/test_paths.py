"""Paths that no file can have, and what is no regular file: one error, at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from u2pl.errors import InputError, quoted
from u2pl.paths import argument, is_file, is_folder, output, read_bytes, read_text, unusable, usable


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("a\0b", "control characters"),
        ("a\nb", "control characters"),
        ("a" * 256, "is too long"),
        ("ä" * 128, "is too long: 256 bytes"),
        ("a/" * 3000, "is too long"),
    ],
)
def test_paths_that_no_file_can_have(text: str, why: str) -> None:
    assert why in str(unusable(text))
    with pytest.raises(InputError, match=r"^root: .*give another$") as caught:
        usable(text, "root:")
    assert len(str(caught.value)) < 250
    with pytest.raises(InputError, match=r"^--out: "):
        argument("--out")(text)
    assert not is_file(Path(text))
    assert not is_folder(Path(text)) or not text


def test_home_folders() -> None:
    assert usable("~/x") == Path("~/x").expanduser()
    assert usable("~nouser/x") == Path("~nouser/x")
    assert unusable("Bilder von \u202fheute/ä") is None
    assert unusable(os.fsdecode(b"caf\xe9")) is None


def test_nothing_is_written_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for below in ("x", "x/y"):
        with pytest.raises(InputError, match="file is a file"):
            output()(str(tmp_path / "file" / below))
    assert output()(str(tmp_path / "new" / "er")) == tmp_path / "new" / "er"


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, why in (
        (tmp_path, "it is a folder"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "pipe", "a device or a pipe"),
        (Path("/dev/zero"), "a device or a pipe"),
        (Path("a" * 300), "too long"),
        (Path("a\0"), "its name is not possible"),
    ):
        with pytest.raises(InputError, match=f"{why}.*; give a file"):
            read_bytes(path, give="give a file")
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfna\xc3\xafve\n")
    assert read_text(tmp_path / "text", give="") == "naïve\n"
    with pytest.raises(InputError, match="too many for this"):
        read_text(tmp_path / "text", give="", largest=3)


def test_values_in_messages_are_short() -> None:
    assert quoted("a") == "'a'"
    assert quoted("a" * 5000) == f"{'a' * 65!r}... (5000 characters)"
    assert len(quoted([1] * 5000)) == 80
    assert quoted(10**5000) == "a number of thousands of digits"
    assert str(InputError(f"{'a' * 5000} is\nno file")) == f"{'a' * 60}...{'a' * 20} is no file"
    assert len(str(InputError("word " * 1000))) < 1300

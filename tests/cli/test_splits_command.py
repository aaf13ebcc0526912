"""`u2pl splits`, and the presets that need what it fetches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.mark.parametrize("command", [("splits",), ("splits", "fetch"), ("splits", "draw")], ids=str)
def test_help(u2pl: Command, command: tuple[str, ...]) -> None:
    shown = u2pl(*command, "--help")
    assert (shown.code, shown.err) == (0, "")
    assert "Usage: " in shown.out


def test_drawn_splits_are_of_use(u2pl: Command, files: Path, yaml: Path, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    drawn = u2pl("splits", "draw", yaml, f"data.root={files}", "--labeled", "2,3", "--seed", "1", "--out", out)
    assert (drawn.code, drawn.err) == (0, "")
    assert "4 files in" in drawn.out
    assert len((out / "2" / "labeled.txt").read_text().split()) == 2
    checked = u2pl("check", yaml, f"data.root={files}", f"data.labeled={out / '2' / 'labeled.txt'}")
    assert checked.code == 0
    other = u2pl("splits", "draw", yaml, f"data.root={files}", "--labeled", "2", "--seed", "3", "--out", out)
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "labeled.txt exists with other content" in other.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("fetch", "voc"), "no published splits of 'voc' (known: pascal, cityscapes)"),
        (("fetch", "pascal", "--url", "http://127.0.0.1:1"), "127.0.0.1:1/pascal/val.txt cannot be fetched"),
        (("draw", "scenes", "--labeled", "3"), "scenes has no files"),
        (("draw", "folder", "--labeled", "many"), "--labeled 'many': should be counts"),
        (("draw", "folder", "--labeled", "3"), "data.root: is needed"),
    ],
)
def test_bad_input_is_one_line(
    u2pl: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = u2pl("splits", *arguments)
    assert said.code == 2
    assert expected in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
